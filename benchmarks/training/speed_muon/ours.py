"""The engine's trainer, as the stage sets it up on these cores."""

from pathlib import Path

from benchmarks.harness import Outcome
from benchmarks.training.speed import ours


def run(folder: Path) -> Outcome:
    """Tokens per second."""
    return ours.measured(folder, "muon")
