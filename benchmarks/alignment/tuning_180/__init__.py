"""Three minutes, from which on the stage compiles."""

from functools import partial

from benchmarks.alignment import tuning
from benchmarks.alignment.tuning import agree

COMPARISON = tuning.comparison(180.0, goal=2.0)
prepare = partial(tuning.prepare, seconds=180.0)
__all__ = ["COMPARISON", "agree", "prepare"]
