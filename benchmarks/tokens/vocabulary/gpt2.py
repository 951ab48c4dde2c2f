"""The pattern of GPT-2's encoder.py, where runs of spaces lose their last space to the next word."""

from pathlib import Path

from benchmarks.harness import Outcome
from benchmarks.tokens.vocabulary.measure import measure_pattern

PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def run(folder: Path) -> Outcome:
    """Bytes per token."""
    return measure_pattern(folder, PATTERN)
