"""What clean does to find near duplicates, task by task, in this one process."""

import time
from pathlib import Path

import polars as pl

from benchmarks.brute_force import in_turn
from benchmarks.data.near_duplicates import BANDS, INPUT, ROWS_PER_BAND, SHINGLE_TOKENS
from benchmarks.harness import Outcome
from components.data.clean import write_judged
from components.data.cleaning.near_duplicates import find_near_duplicates
from components.data.config import DuplicateConfig

_PIECE_DOCUMENTS = 1000
# One takes a fifth of a second, too little to time beside other processes.
_PASSES = 5


def run(folder: Path) -> Outcome:
    """Documents a second, and the ids that stay. A pass over few documents loads first what loads when it is used."""
    _find(folder, pl.read_parquet(folder / INPUT, n_rows=20))
    started = time.perf_counter()
    for _ in range(_PASSES):
        documents = pl.read_parquet(folder / INPUT)
        kept = _find(folder, documents)
    seconds = (time.perf_counter() - started) / _PASSES
    return Outcome(figure=documents.height / seconds, answer={"kept": kept})


def _find(folder: Path, documents: pl.DataFrame) -> list[str]:
    """The ids that stay; pieces, signatures and shingle sets go through files, as they do in clean."""
    config = DuplicateConfig(
        num_permutations=BANDS * ROWS_PER_BAND, rows_per_band=ROWS_PER_BAND, shingle_tokens=SHINGLE_TOKENS
    )
    work = folder / f"ours-{time.time_ns()}"
    work.mkdir()
    documents = documents.with_columns(redactions=pl.lit(0, pl.Int32))
    pieces = [documents[at : at + _PIECE_DOCUMENTS] for at in range(0, documents.height, _PIECE_DOCUMENTS)]
    records = [write_judged(work, number, piece, config) for number, piece in enumerate(pieces)]
    total = sum(record["records"] for record in records)
    members = find_near_duplicates(work, len(pieces), total, config, in_turn).members
    dropped = members.filter(pl.col("kept_id").is_not_null())["id"]
    return documents.filter(~pl.col("id").is_in(dropped.implode()))["id"].to_list()
