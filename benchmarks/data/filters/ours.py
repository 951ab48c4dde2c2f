"""What clean does to filter, in this one process."""

import time
from pathlib import Path

import polars as pl

from benchmarks.data.filters import INPUT
from benchmarks.harness import Outcome
from components.data.cleaning.filters import apply_filters
from components.data.config import FilterConfig


def run(folder: Path) -> Outcome:
    """Documents a second of the processor, and the reasons. A pass over few documents loads first what loads late."""
    documents = pl.read_parquet(folder / INPUT)
    config = FilterConfig(lock_files=(), minified_files=(), check_language=False)
    apply_filters(documents[:20], config)
    started = time.process_time()
    judged = apply_filters(documents, config)
    seconds = time.process_time() - started
    dropped = judged.drop_nulls("reason").select("path", "reason")
    return Outcome(figure=documents.height / seconds, answer={"reasons": dict(dropped.rows())})
