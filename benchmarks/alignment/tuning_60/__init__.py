"""A minute: the time of a smoke cycle, too short to compile."""

from functools import partial

from benchmarks.alignment import tuning
from benchmarks.alignment.tuning import agree

COMPARISON = tuning.comparison(60.0, goal=1.5)
prepare = partial(tuning.prepare, seconds=60.0)
__all__ = ["COMPARISON", "agree", "prepare"]
