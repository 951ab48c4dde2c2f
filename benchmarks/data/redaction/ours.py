"""What clean does to find private data, in this one process."""

import time
from pathlib import Path

import polars as pl

from benchmarks.data.redaction import INPUT
from benchmarks.harness import Outcome
from components.data.cleaning.redact import find_all, replace
from components.data.config import RedactConfig


def run(folder: Path) -> Outcome:
    """Documents a second, and the spans of each. A pass over few documents loads first what loads when it is used."""
    _redact(pl.read_parquet(folder / INPUT, n_rows=20)["text"])
    started = time.perf_counter()
    texts = pl.read_parquet(folder / INPUT)["text"]
    spans = _redact(texts)
    seconds = time.perf_counter() - started
    return Outcome(figure=texts.len() / seconds, answer=spans)


def _redact(texts: pl.Series) -> dict[str, list[list[tuple[int, int]]]]:
    """Redacts, and returns the spans by kind and document."""
    spans: dict[str, list[list[tuple[int, int]]]] = {kind: [[] for _ in texts] for kind in ("email", "ip", "key")}
    for row, found in find_all(texts, RedactConfig.model_validate({})):
        replace(texts[row], found)
        for each in found:
            spans[each.kind][row].append((each.start, each.end))
    return spans
