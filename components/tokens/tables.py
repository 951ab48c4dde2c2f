"""Parquet files that are written in a stream: rows in, row groups of a stated number of rows out."""

from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl
import pyarrow.parquet as pq


class TableWriter:
    """Append frames to one zstd Parquet file: equal bytes for equal rows, however they arrive. `num_rows` counts them.

    In memory are the rows of one group and of one frame.
    """

    def __init__(self, path: Path, schema: pl.Schema, *, group_rows: int) -> None:
        self.path = path
        self.num_rows = 0
        self._group_rows = group_rows
        self._waiting = pl.DataFrame(schema=schema)
        self._writer = pq.ParquetWriter(path, self._table(self._waiting).schema, compression="zstd")

    def append(self, rows: pl.DataFrame) -> None:
        """Write all whole row groups; keep the rest."""
        self.num_rows += len(rows)
        self._waiting = pl.concat([self._waiting, rows.select(self._waiting.columns)])
        while len(self._waiting) >= self._group_rows:
            self._writer.write_table(self._table(self._waiting[: self._group_rows]))
            self._waiting = self._waiting[self._group_rows :]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if len(self._waiting) or not self.num_rows:
                self._writer.write_table(self._table(self._waiting))
        finally:
            self._writer.close()

    @staticmethod
    def _table(rows: pl.DataFrame) -> "pq.Table":
        return rows.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
