"""64 prompts in one batch."""

from functools import partial

from benchmarks.alignment import generation
from benchmarks.alignment.generation import agree

COMPARISON = generation.comparison(64)
prepare = partial(generation.prepare, batch=64)
__all__ = ["COMPARISON", "agree", "prepare"]
