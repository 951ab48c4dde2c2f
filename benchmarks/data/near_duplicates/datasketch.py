"""datasketch's MinHash and index as its documentation uses them: shingle by shingle, document by document."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from datasketch import MinHash, MinHashLSH  # type: ignore[import-not-found]

from benchmarks.data.near_duplicates import BANDS, INPUT, ROWS_PER_BAND, SHINGLE_TOKENS
from benchmarks.harness import Outcome

_WORD = re.compile(rb"[A-Za-z0-9_\x80-\xff]+")


def run(folder: Path) -> Outcome:
    """Documents a second, and the ids that stay."""
    return timed(folder, one_by_one)


def one_by_one(signature: Any, shingles: set[bytes]) -> None:
    """A call for each shingle."""
    for shingle in shingles:
        signature.update(shingle)


def timed(folder: Path, update: Callable[[Any, set[bytes]], None]) -> Outcome:
    """Those stay that share a band with none that stays."""
    pl.read_parquet(folder / INPUT, n_rows=20)
    started = time.perf_counter()
    documents = pl.read_parquet(folder / INPUT, columns=["id", "text"])
    index = MinHashLSH(num_perm=BANDS * ROWS_PER_BAND, params=(BANDS, ROWS_PER_BAND))
    kept = []
    for name, text in documents.iter_rows():
        words = _WORD.findall(text.encode())
        shingles = {b" ".join(words[at : at + SHINGLE_TOKENS]) for at in range(len(words) - SHINGLE_TOKENS + 1)}
        signature = MinHash(num_perm=BANDS * ROWS_PER_BAND)
        update(signature, shingles)
        if not shingles or not index.query(signature):
            kept.append(name)
            if shingles:
                index.insert(name, signature)
    seconds = time.perf_counter() - started
    return Outcome(figure=documents.height / seconds, answer={"kept": kept})
