"""A plain loop with Muon."""

from pathlib import Path

from benchmarks.harness import Outcome
from benchmarks.training import muon_loop
from benchmarks.training.budget import Budget
from benchmarks.training.learning import SECONDS


def run(folder: Path) -> Outcome:
    """Bits per byte."""
    return muon_loop.train(folder, Budget(seconds=SECONDS))
