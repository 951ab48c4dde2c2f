"""Rows on disk until they can be written in their order: dealt into buckets, read back one bucket at a time.

Rows come in the order of a stream and go out bucket by bucket, so that sorting a corpus needs the memory of one bucket
and not of the corpus. A segment is one Arrow file with one record batch a bucket.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

BUCKET = "bucket"


class Spool:
    """A table in segments below a directory of its own. Rows carry a column `bucket`, from 0 to `num_buckets` - 1."""

    def __init__(
        self, directory: Path, schema: pl.Schema, *, num_buckets: int, flush_bytes: int, compress: bool = False
    ) -> None:
        directory.mkdir(parents=True)
        self.rows = 0
        self.num_buckets = num_buckets
        self._directory = directory
        self._schema = schema
        self._flush_bytes = flush_bytes
        self._options = pa.ipc.IpcWriteOptions(compression="lz4" if compress else None)
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._segments: list[tuple[Path, list[int]]] = []
        self._written = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Take rows in, in any order. They are copied: a few rows of a batch would keep all of its texts in memory."""
        if frame.height:
            self._waiting.append(_table(frame.select(self._schema.names())))
            self._waiting_bytes += int(self._waiting[-1].nbytes)
            self.rows += frame.height
            if self._waiting_bytes >= self._flush_bytes:
                self.flush()

    def flush(self) -> None:
        """Write the rows that wait as one segment."""
        if self._waiting:
            self._write(pa.concat_tables(self._waiting))
            self._waiting, self._waiting_bytes = [], 0

    def read(self, buckets: range) -> pl.DataFrame:
        """All rows of neighbouring buckets, in no stated order."""
        self.flush()
        frames = [pl.DataFrame(schema=self._schema)]
        for path, order in self._segments:
            numbers = [number for number, bucket in enumerate(order) if bucket in buckets]
            if numbers:
                with pa.memory_map(str(path)) as source:
                    reader = pa.ipc.open_file(source)
                    frames.append(_frame([reader.get_batch(number) for number in numbers]))
        return pl.concat(frames)

    def scan(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Some columns of all rows, a segment at a time."""
        self.flush()
        for path, order in self._segments:
            yield self._read_segment(path, order, columns)

    def compact(self, keep: Callable[[pl.DataFrame], pl.Series], columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Drop the rows for which `keep`, told some columns of a segment, says False; yields these columns of them."""
        self.flush()
        segments, self._segments = self._segments, []
        for path, order in segments:
            kept = keep(segment := self._read_segment(path, order, columns))
            if kept.all():
                self._segments.append((path, order))
                continue
            self.rows -= int((~kept).sum())
            if kept.any():
                self._write(_table(self._read_segment(path, order, self._schema.names()).filter(kept)))
            path.unlink()
            yield segment.filter(~kept)

    def _read_segment(self, path: Path, order: list[int], columns: Sequence[str]) -> pl.DataFrame:
        fields = [self._schema.names().index(name) for name in columns]
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=fields))
            return _frame([reader.get_batch(number) for number in range(len(order))]).select(columns)

    def _write(self, table: pa.Table) -> None:
        buckets = table[BUCKET].to_numpy()
        if buckets.min() != buckets.max():
            table = table.take(np.argsort(buckets, kind="stable"))
            buckets = table[BUCKET].to_numpy()
        order, starts = np.unique(buckets, return_index=True)
        table = table.combine_chunks()
        path = self._directory / f"{self._written:06}.arrow"
        self._written += 1
        with pa.ipc.new_file(path, table.schema, options=self._options) as writer:
            for start, stop in zip(starts, [*starts[1:], len(buckets)], strict=True):
                writer.write_table(table.slice(start, stop - start), max_chunksize=max(1, stop - start))
        self._segments.append((path, order.tolist()))


def _table(frame: pl.DataFrame) -> pa.Table:
    """Rows in buffers that hold nothing else."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _frame(batches: list[pa.RecordBatch]) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(pa.Table.from_batches(batches)))
