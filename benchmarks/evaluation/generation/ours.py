"""The engine that the platform chooses for the model, given all prompts at once."""

import json
import os
import time
from pathlib import Path

from benchmarks.evaluation.generation import NEW_TOKENS
from benchmarks.harness import Outcome
from components.inference.engine import Sampling
from components.inference.open import open_engine


def run(folder: Path) -> Outcome:
    """New tokens a second, once warm."""
    prompts: list[list[int]] = json.loads((folder / "prompts.json").read_text())
    threads = len(os.sched_getaffinity(0))
    engine = open_engine(folder / "model", num_threads=threads, cache=folder / "engines")
    sampling = Sampling(max_new_tokens=NEW_TOKENS)
    engine.generate(prompts[:2], sampling, stop_ids=[])
    started = time.perf_counter()
    found = engine.generate(prompts, sampling, stop_ids=[])
    seconds = time.perf_counter() - started
    completions = [list(samples[0].tokens) for samples in found]
    return Outcome(
        figure=sum(map(len, completions)) / seconds,
        answer={"completions": completions, "engine": engine.name, "threads": threads},
    )
