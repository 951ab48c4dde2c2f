"""The pattern of cl100k_base, where punctuation takes the line's end with it and digits go in threes."""

from pathlib import Path

from benchmarks.harness import Outcome
from benchmarks.tokens.vocabulary.measure import measure_pattern

PATTERN = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def run(folder: Path) -> Outcome:
    """Bytes per token."""
    return measure_pattern(folder, PATTERN)
