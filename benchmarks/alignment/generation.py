"""Greedy answers to one batch of prompts: ours against transformers' `generate` on the same batch, padded on the left.

Prompts of 16 to 96 random tokens, 64 new tokens each, no token that ends them, so that both write equally many. float32
on both sides, as many threads as there are cores (`taskset -c 0` for one). The model is random, of the size that the
smoke profile makes: what is compared is the work, and that both write the same.
"""

import importlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison, Outcome

SHORTEST_TOKENS, LONGEST_TOKENS = 16, 96
NEW_TOKENS = 64
ROUNDS = 3
MODEL, PROMPTS = "model", "prompts.json"
# Where two tokens are as likely as each other within float32's rounding, either is a greedy choice, and all that
# follows may differ.
EQUAL_SHARE = 0.95


def comparison(batch: int) -> Comparison:
    """The comparison of one size of batch."""
    return Comparison(
        name=f"generation of a batch of {batch}",
        unit="tokens/s",
        peers={"generate": 2.0},
        peers_in_our_environment=True,
    )


def prepare(folder: Path, batch: int) -> None:
    """Write model/ and prompts.json."""
    importlib.import_module("benchmarks.alignment.given").prepare(folder, batch)


def agree(folder: Path, ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError unless the completions are the same, but for as few as ties may explain."""
    pairs = list(zip(ours["completions"], peer["completions"], strict=True))
    equal = sum(mine == theirs and len(mine) == NEW_TOKENS for mine, theirs in pairs)
    if equal < EQUAL_SHARE * len(pairs):
        raise ValueError(f"{equal} of {len(pairs)} completions are equal and whole, needed {EQUAL_SHARE:.0%}")
    return {"equal": equal, "of": len(pairs), "engine": ours["engine"], "threads": [ours["threads"], peer["threads"]]}


def measured(folder: Path, write: Callable[[list[list[int]]], list[list[int]]], **answer: Any) -> Outcome:
    """New tokens a second of a side, once warm."""
    prompts: list[list[int]] = json.loads((folder / PROMPTS).read_text(encoding="utf-8"))
    write(prompts)
    started = time.perf_counter()
    for _ in range(ROUNDS):
        completions = write(prompts)
    seconds = time.perf_counter() - started
    threads = len(os.sched_getaffinity(0))
    return Outcome(
        figure=ROUNDS * sum(map(len, completions)) / seconds,
        answer={"completions": completions, "threads": threads, **answer},
    )
