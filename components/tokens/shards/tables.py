"""Parquet files that are written in a stream: rows in, row groups of a stated number of rows out."""

from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from components.data.documents.document import arrow_table


class TableWriter:
    """Append frames to one zstd Parquet file: equal bytes for equal rows, however they arrive. `num_rows` counts them.

    In memory are the rows of one group and of one frame. They wait as Arrow tables: a filtered polars frame holds on to
    the strings of all the rows it was filtered from (held-out rows of 25 chunks kept 400 MB that way).
    """

    def __init__(self, path: Path, schema: pl.Schema, *, group_rows: int) -> None:
        self.path = path
        self.num_rows = 0
        self._columns = schema.names()
        self._group_rows = group_rows
        self._waiting = arrow_table(pl.DataFrame(schema=schema))
        self._writer = pq.ParquetWriter(path, self._waiting.schema, compression="zstd")

    def append(self, rows: pl.DataFrame) -> None:
        """Write all whole row groups; keep the rest."""
        self.num_rows += len(rows)
        waiting = pa.concat_tables([self._waiting, arrow_table(rows.select(self._columns))])
        while waiting.num_rows >= self._group_rows:
            self._writer.write_table(waiting[: self._group_rows].combine_chunks())
            waiting = waiting[self._group_rows :]
        self._waiting = waiting

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._waiting.num_rows or not self.num_rows:
            self._writer.write_table(self._waiting.combine_chunks())
        self._writer.close()
