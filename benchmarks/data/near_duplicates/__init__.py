"""Near duplicates among real files: from a Parquet file without exact duplicates to the ids that stay.

All sides: shingles of 5 words, 14 bands of 8 values (the defaults of datatrove), one process.
Not the same: datatrove folds case, punctuation and numbers and splits words with spaCy, and, like datasketch's index,
takes what shares a band for alike; ours compares the sets of such pairs and drops from a similarity of 0.7 on. So the
comparison of decisions allows for a difference.
"""

import hashlib
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.harness import Comparison
from benchmarks.installed import sample

BANDS, ROWS_PER_BAND, SHINGLE_TOKENS = 14, 8, 5
INPUT = "documents.parquet"
COMPARISON = Comparison(
    name="near duplicates", unit="documents/s", peers={"datatrove": 5.0, "datasketch": 50.0, "datasketch_batch": 10.0}
)
# Packages of this environment that repeat themselves.
_PACKAGES = ("trl", "pyarrow", "dateparser", "pydantic", "openai")
_MIN_AGREEMENT = 0.9


def prepare(folder: Path) -> None:
    """1,200 files of packages that repeat themselves, as documents."""
    texts = {hashlib.sha256(text.encode()).hexdigest(): text for text in sample(1200, packages=_PACKAGES)}
    documents = pl.DataFrame({"id": sorted(texts)}).with_columns(
        text=pl.col("id").replace_strict(texts), path=pl.col("id") + ".py", language=pl.lit("python")
    )
    constants = {"package": "p", "version": "1", "licence": "MIT", "source": "s"}
    columns = ["id", "text", "path", "package", "version", "licence", "language", "source", "bytes"]
    documents = documents.with_columns(
        *(pl.lit(value).alias(name) for name, value in constants.items()),
        bytes=pl.col("text").str.len_bytes().cast(int),
    )
    documents.select(columns).write_parquet(folder / INPUT)


def agree(folder: Path, ours: dict[str, Any], peer: dict[str, Any]) -> str:
    """The share of documents that both keep or both drop; raises ValueError under 90 %."""
    ids = pl.read_parquet(folder / INPUT, columns=["id"])["id"].to_list()
    kept, other = set(ours["kept"]), set(peer["kept"])
    same = sum((each in kept) == (each in other) for each in ids) / len(ids)
    dropped = len(ids) - len(kept), len(ids) - len(other)
    line = f"{same:.2%} of {len(ids)} documents decided alike, {dropped[0]} and {dropped[1]} dropped"
    if same < _MIN_AGREEMENT:
        raise ValueError(line)
    return line
