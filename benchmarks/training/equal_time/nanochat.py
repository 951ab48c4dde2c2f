"""nanochat's recipe."""

from pathlib import Path

from benchmarks.harness import Outcome
from benchmarks.training import nanochat
from benchmarks.training.budget import Budget
from benchmarks.training.learning import SECONDS


def run(folder: Path) -> Outcome:
    """Bits per byte."""
    return nanochat.train(folder, Budget(seconds=SECONDS))
