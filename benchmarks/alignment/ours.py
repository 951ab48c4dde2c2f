"""The engine that samples answers, given all prompts at once."""

import os
from pathlib import Path

from benchmarks.alignment.generation import MODEL, NEW_TOKENS, measured
from benchmarks.harness import Outcome
from components.inference.engine import Sampling
from components.inference.open import open_engine


def run(folder: Path) -> Outcome:
    """New tokens a second."""
    threads = len(os.sched_getaffinity(0))
    engine = open_engine(folder / MODEL, num_threads=threads, cache=folder / "engines")

    def write(prompts: list[list[int]]) -> list[list[int]]:
        found = engine.generate(prompts, Sampling(max_new_tokens=NEW_TOKENS), stop_ids=[])
        return [list(samples[0].tokens) for samples in found]

    return measured(folder, write, engine=engine.name)
