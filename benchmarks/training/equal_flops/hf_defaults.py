"""transformers' Trainer with its defaults."""

from pathlib import Path

from benchmarks.harness import Outcome
from benchmarks.training import hf_trainer
from benchmarks.training.budget import Budget
from benchmarks.training.learning import FLOPS


def run(folder: Path) -> Outcome:
    """Bits per byte."""
    return hf_trainer.train(folder, Budget(flops=FLOPS))
