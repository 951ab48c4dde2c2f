"""A document on disk: the columns every data stage shares, and Parquet shards of a stated size and order."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.core import artifact
from components.core.errors import DataError

SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "text": pl.String,
        "path": pl.String,
        "package": pl.String,
        "version": pl.String,
        "licence": pl.String,
        "language": pl.String,
        "source": pl.String,
        "bytes": pl.Int64,
    }
)
PARTS = "part-*.parquet"
# Rows of a shard that are written, and can be read, on their own.
_ROW_GROUP_BYTES = 16_000_000
_HASHED_AT_ONCE = 64
# Rows of a row group of a table without texts.
_ROW_GROUP_ROWS = 65_536


def document_id(text: str) -> str:
    """sha256 of the UTF-8 text, hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def document_ids(texts: pl.Series) -> pl.Series:
    """document_id of every text, null for null; hashed in threads where the texts lie, without a copy of each."""
    column = texts.cast(pl.String).rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int64)[column.offset :][: len(column) + 1].tolist()
    content = memoryview(column.buffers()[2] or b"")

    def hashed(start: int) -> list[str]:
        edges = itertools.pairwise(offsets[start : start + _HASHED_AT_ONCE + 1])
        return [hashlib.sha256(content[first:last]).hexdigest() for first, last in edges]

    with ThreadPoolExecutor() as pool:
        parts = pool.map(hashed, range(0, len(column), _HASHED_AT_ONCE))
        ids = pl.Series("id", [each for part in parts for each in part], dtype=pl.String)
    return ids.set(texts.is_null(), None) if texts.has_nulls() else ids


def parts(directory: Path) -> list[Path]:
    """The shards of an artifact in their order. Raises DataError when it has none."""
    shards = artifact.files(directory, PARTS)
    if not shards:
        raise DataError(f"{directory}: found no {PARTS}, needed at least one shard of documents; run ingest again")
    return shards


def row_groups(directory: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[Path, int, pl.DataFrame]]:
    """(shard, number of its row group, the group's rows) of an artifact, in the order of the rows.

    A shard without rows gives one group 0 of no rows, so that its columns are known.
    """
    for path in parts(directory):
        shard = pq.ParquetFile(path)
        for group in range(max(1, shard.num_row_groups)):
            table = shard.read_row_group(group, columns=columns) if shard.num_row_groups else shard.read(columns)
            yield path, group, pl.DataFrame(pl.from_arrow(table))


def cut(sizes: pl.Series, limit: int) -> list[slice]:
    """Consecutive rows whose sizes sum up to at least `limit`, the last slice excepted; no rows, no slices."""
    slices, start, total = [], 0, 0
    for row, size in enumerate(sizes):
        total += size
        if total >= limit:
            slices.append(slice(start, row + 1))
            start, total = row + 1, 0
    return slices if start == len(sizes) else [*slices, slice(start, len(sizes))]


def write_table(frame: pl.DataFrame, path: Path) -> int:
    """Write one zstd Parquet file in one row group, equal bytes for equal rows; returns the number of rows."""
    pq.write_table(arrow_table(frame), path, compression="zstd", row_group_size=max(1, frame.height))
    return frame.height


def stream_table(frames: Iterable[pl.DataFrame], schema: pl.Schema, path: Path) -> int:
    """Write frames below each other into one zstd Parquet file, equal bytes for equal rows however they are cut.

    Returns the number of rows. No more than a row group and a frame are in memory.
    """
    rows, waiting = 0, pl.DataFrame(schema=schema)
    with pq.ParquetWriter(path, arrow_table(waiting).schema, compression="zstd") as writer:
        for frame in frames:
            waiting = pl.concat([waiting, frame.select(schema.names()).cast(schema)])
            while waiting.height >= _ROW_GROUP_ROWS:
                writer.write_table(arrow_table(waiting[:_ROW_GROUP_ROWS]))
                waiting, rows = waiting[_ROW_GROUP_ROWS:], rows + _ROW_GROUP_ROWS
        if waiting.height or not rows:
            writer.write_table(arrow_table(waiting))
    return rows + waiting.height


class ShardWriter:
    """Writes rows in the order given into part-00000.parquet, part-00001.parquet, ... of about `shard_bytes` of text.

    The cuts depend on the rows alone, not on how they arrive. `rows` says how many rows each file got, `total_bytes`
    how much text all of them. `first` numbers the first shard, for writers that write one of many.
    """

    def __init__(self, directory: Path, schema: pl.Schema, shard_bytes: int, first: int = 0) -> None:
        self.directory = directory
        self.rows: dict[str, int] = {}
        self.total_bytes = 0
        self._schema = schema
        self._shard_bytes = shard_bytes
        self._first = first
        self._group: list[pl.DataFrame] = []
        self._group_bytes = 0
        self._written_bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self._name = ""

    def write(self, frame: pl.DataFrame) -> None:
        """Append rows; `bytes` is the size that shards and row groups are cut by."""
        frame = frame.select(self._schema.names()).cast(self._schema)
        for rows in cut_after(frame["bytes"], self._group_bytes, self._group_limit):
            self._group.append(frame[rows])
            self._group_bytes += int(frame["bytes"][rows].sum())
            if self._group_bytes >= self._group_limit:
                self._flush()

    @property
    def _group_limit(self) -> int:
        return _group_limit(self._shard_bytes)

    def _flush(self) -> None:
        if not self._group:
            return
        group = pl.concat(self._group)
        table = arrow_table(group)
        if self._writer is None:
            self._name = f"part-{self._first + len(self.rows):05}.parquet"
            self._writer = pq.ParquetWriter(self.directory / self._name, table.schema, compression="zstd")
            self.rows[self._name] = 0
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self.rows[self._name] += group.height
        self._written_bytes += self._group_bytes
        self.total_bytes += self._group_bytes
        self._group, self._group_bytes = [], 0
        if self._written_bytes >= self._shard_bytes:
            self._writer.close()
            self._writer, self._written_bytes = None, 0

    def close(self) -> None:
        """Write what is left. An empty table still gets one shard, so that readers find its columns."""
        if not self.rows and not self._group:
            self._group = [pl.DataFrame(schema=self._schema)]
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def cut_after(sizes: pl.Series, carried: int, limit: int) -> list[slice]:
    """`cut` for rows that follow `carried` bytes which wait for the same group."""
    if not len(sizes):
        return []
    return cut(pl.concat([sizes[:1] + carried, sizes[1:]]), limit)


def shard_cuts(sizes: Iterable[NDArray[np.int64]], shard_bytes: int) -> list[list[tuple[int, int, int]]]:
    """Where a ShardWriter would cut rows that arrive in runs with these text sizes: for each shard (run, start, stop).

    So that shards can be written each on its own. No rows, no shards.
    """
    limit = _group_limit(shard_bytes)
    shards: list[list[tuple[int, int, int]]] = [[]]
    group_bytes = written_bytes = 0
    for run, each in enumerate(sizes):
        ends, start, before = np.cumsum(each), 0, 0
        while start < len(each):
            last = int(np.searchsorted(ends, before + limit - group_bytes))
            stop = min(last + 1, len(each))
            shards[-1].append((run, start, stop))
            group_bytes += int(ends[stop - 1]) - before
            start, before = stop, int(ends[stop - 1])
            if group_bytes >= limit:
                written_bytes, group_bytes = written_bytes + group_bytes, 0
                if written_bytes >= shard_bytes:
                    shards.append([])
                    written_bytes = 0
    return [shard for shard in shards if shard]


def _group_limit(shard_bytes: int) -> int:
    """Text bytes from which a row group is written."""
    return min(_ROW_GROUP_BYTES, shard_bytes)


def arrow_table(frame: pl.DataFrame) -> pa.Table:
    """An Arrow table of plain strings, without the chunks that a frame was put together from."""
    return frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())


def concat(frames: Iterable[pl.DataFrame], schema: pl.Schema) -> pl.DataFrame:
    """Frames below each other; an empty frame of the schema when there are none."""
    return pl.concat([pl.DataFrame(schema=schema), *frames])
