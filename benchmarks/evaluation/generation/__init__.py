"""Greedy completions: ours in batches against a loop of transformers' `generate`, one prompt at a time.

64 prompts of 16 to 160 tokens of text that the model has not seen, 64 new tokens each, no token that ends them, so that
both write equally many. float32 on both sides, as many threads as there are cores.
"""

import importlib
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison

COMPARISON = Comparison(
    name="batched generation", unit="tokens/s", peers={"generate_loop": 3.0}, peers_in_our_environment=True
)
PROMPTS = 64
SHORTEST_TOKENS, LONGEST_TOKENS = 16, 160
NEW_TOKENS = 64
# Where two tokens are as likely as each other within float32's rounding, either is a greedy choice, and all that
# follows may differ.
EQUAL_SHARE = 0.95


def prepare(folder: Path) -> None:
    """Write model/ and prompts.json."""
    importlib.import_module("benchmarks.evaluation.generation.given").prepare(folder)


def agree(folder: Path, ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError unless the completions are the same, but for as few as ties may explain."""
    pairs = list(zip(ours["completions"], peer["completions"], strict=True))
    equal = sum(mine == theirs for mine, theirs in pairs)
    whole = sum(len(mine) == NEW_TOKENS for mine, _ in pairs)
    if whole < len(pairs):
        raise ValueError(f"{whole} of {len(pairs)} completions have {NEW_TOKENS} new tokens, needed all")
    if equal < EQUAL_SHARE * len(pairs):
        raise ValueError(f"{equal} of {len(pairs)} completions are equal, needed {EQUAL_SHARE:.0%}")
    told = {"equal": equal, "of": len(pairs), "engine": ours["engine"], "threads": [ours["threads"], peer["threads"]]}
    distinct = len({tuple(mine) for mine, _ in pairs})
    return told | {"distinct": distinct}
