"""datasketch with the shingles of a document in one call, which its documentation calls faster."""

from pathlib import Path
from typing import Any

from benchmarks.data.near_duplicates.datasketch import timed
from benchmarks.harness import Outcome


def run(folder: Path) -> Outcome:
    """Documents a second, and the ids that stay."""
    return timed(folder, all_at_once)


def all_at_once(signature: Any, shingles: set[bytes]) -> None:
    """One call for all shingles."""
    if shingles:
        signature.update_batch(list(shingles))
