"""The vocabulary as the stage learns it."""

from pathlib import Path

from benchmarks.harness import Outcome
from benchmarks.tokens.vocabulary.measure import measure
from components.tokens.vocabulary import learn


def run(folder: Path) -> Outcome:
    """Bytes per token."""
    return measure(folder, learn)
