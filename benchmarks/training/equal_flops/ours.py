"""The stage's own worker, next token only."""

from pathlib import Path

from benchmarks.harness import Outcome
from benchmarks.training import ours
from benchmarks.training.budget import Budget
from benchmarks.training.learning import FLOPS


def run(folder: Path) -> Outcome:
    """Bits per byte."""
    return ours.train(folder, Budget(flops=FLOPS))
