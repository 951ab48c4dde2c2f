"""Parquet tables with a column `text`; path, package, version, licence and language are taken where they are there.

Rows are passed on as they are, so that a bad one is quarantined with its reason instead of disappearing here. `bytes`
and `id` are computed, never trusted. Not covered: tables larger than memory.
"""

from collections import Counter
from pathlib import Path

import polars as pl

from components.core.errors import DataError
from components.data.config import IngestConfig
from components.data.documents import SCHEMA, concat, document_ids, language_of

_MADE_HERE = frozenset({"id", "text", "bytes", "source"})


def read(config: IngestConfig) -> tuple[pl.DataFrame, Counter[str]]:
    """The rows of every table in the order of config.paths, and those left by reason (not_utf8: bytes, not text)."""
    left: Counter[str] = Counter()
    frames = [_read_table(path, config, left) for path in _tables(config.paths)]
    return concat(frames, SCHEMA), left


def _tables(paths: tuple[str, ...]) -> list[Path]:
    found: list[Path] = []
    for name in paths:
        path = Path(name)
        tables = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not tables or not tables[0].exists():
            raise DataError(f"{name}: found no Parquet file; correct ingest.paths in params.yaml")
        found.extend(tables)
    return found


def _read_table(path: Path, config: IngestConfig, left: Counter[str]) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {' '.join(str(error).split())[:200]}") from error
    kind = frame.schema.get("text")
    if kind not in (pl.String, pl.Binary):
        raise DataError(
            f"{path}: column text is {kind or 'absent'}, needed text; columns found: {', '.join(frame.columns)}"
        )
    if kind == pl.Binary:
        decoded = frame.with_columns(pl.col("text").cast(pl.String, strict=False).alias("decoded"))
        undecodable = pl.col("decoded").is_null() & pl.col("text").is_not_null()
        left["not_utf8"] += decoded.filter(undecodable).height
        frame = decoded.filter(~undecodable).with_columns(text=pl.col("decoded")).drop("decoded")
    defaults = {
        "path": pl.format("{}:{}", pl.lit(path.name), pl.int_range(pl.len())),
        "package": pl.lit(config.package),
        "version": pl.lit(""),
        "licence": pl.lit(config.licence),
        "language": pl.lit(None, dtype=pl.String),
    }
    columns = [
        pl.coalesce(pl.col(name).cast(pl.String), default).alias(name) if name in frame.columns else default.alias(name)
        for name, default in defaults.items()
    ]
    frame = frame.select("text", *columns).with_columns(
        document_ids(frame["text"].fill_null("")),
        pl.lit("parquet").alias("source"),
        pl.col("text").str.len_bytes().fill_null(0).cast(pl.Int64).alias("bytes"),
    )
    return frame.with_columns(language=_languages(frame)).select(SCHEMA.names())


def _languages(frame: pl.DataFrame) -> pl.Series:
    """The language column, filled from the suffix of the path, else `unknown`."""
    return pl.Series(
        [
            language or language_of(path) or "unknown"
            for language, path in zip(frame["language"], frame["path"], strict=True)
        ],
        dtype=pl.String,
    )
