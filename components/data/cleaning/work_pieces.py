"""The judged documents of a running clean on disk, in pieces that tasks write and read on their own.

A piece is a run of the input's rows, cut where the id changes, of about `task_bytes` of text. Its folder holds
    documents.arrow    those that stay so far: the columns of SCHEMA with redacted text, and redactions, their count
    drops.arrow        id, path, reason, detail of the others
    redactions.arrow   row, kind, start, end, placeholder
    signatures.npy     (rows, num_permutations), and bands.npy, band_rows.npy: what band_hashes gives
    piece.json         rows and bytes of every file, so that a piece cut short is seen
and appears by a rename, whole. A document's number is its piece's number and its row in it: numbers are in the order of
the ids, whatever the cuts.

The folder of pieces lies in the state directory under a key of inputs, parameters and code, beside a lock that the
running clean holds. A killed clean leaves it, and the next one of the same key goes on from the pieces that are there;
one of another key removes it. It must be a place that every worker reaches: on several nodes, a shared file system.
"""

import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.core.errors import BusyError, DataError, one_line
from components.data.documents.document import concat, parts

DROPS_SCHEMA = pl.Schema({"id": pl.String, "path": pl.String, "reason": pl.String, "detail": pl.String})
UNREADABLE = "unreadable"
_ROW_BITS = 32
_RECORD = "piece.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows start to stop of one row group of a shard."""

    path: str
    group: int
    start: int
    stop: int

    @property
    def names(self) -> list[str]:
        """What to call rows whose paths cannot be read."""
        return _names(Path(self.path).name, self.group, range(self.start, self.stop))


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Consecutive rows of the input."""

    number: int
    rows: tuple[Rows, ...]

    def __str__(self) -> str:
        first, last = self.rows[0], self.rows[-1]
        return (
            f"{Path(first.path).name} row group {first.group} row {first.start} to "
            f"{Path(last.path).name} row group {last.group} row {last.stop}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The pieces of an input, drops (DROPS_SCHEMA) for rows that nothing can be read of, and the number of all rows."""

    pieces: list[Piece]
    unreadable: pl.DataFrame
    rows: int


def plan(source: Path, task_bytes: int, rows_of_shards: Mapping[str, int]) -> Plan:
    """Cut the rows of an artifact into pieces. One row group's ids and sizes are in memory at a time.

    `rows_of_shards` says how many rows a shard should have, for one whose footer cannot be read. Raises DataError when
    ids are out of order: equal ones would not lie together.
    """
    cutter, lost, total, last = _Cutter(task_bytes), [], 0, ""
    for path in parts(source):
        try:
            shard = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            names = _names(path.name, None, range(rows_of_shards.get(path.name, 0)))
            lost.append(_unreadable(names, error))
            total += len(names)
            continue
        for group in range(shard.num_row_groups):
            count = shard.metadata.row_group(group).num_rows
            total += count
            try:
                index = pl.DataFrame(pl.from_arrow(shard.read_row_group(group, columns=["id", "bytes"])))
            except (pa.ArrowException, OSError) as error:
                lost.append(_unreadable(_names(path.name, group, range(count)), error))
                continue
            if index.is_empty():
                continue
            if index["id"].has_nulls() or index["id"][0] < last or not index["id"].is_sorted():
                raise DataError(f"{path}: ids are null or out of order in row group {group}; write the artifact again")
            cutter.add(str(path.resolve()), group, index, continues=index["id"][0] == last)
            last = index["id"][-1]
    return Plan(pieces=cutter.close(), unreadable=concat(lost, DROPS_SCHEMA), rows=total)


class _Cutter:
    """Cuts rows that arrive by row groups where at least `limit` bytes are together and the id changes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[Piece] = []
        self._rows: list[Rows] = []
        self._bytes = 0

    def add(self, path: str, group: int, index: pl.DataFrame, *, continues: bool) -> None:
        ends = np.cumsum(index["bytes"].fill_null(0).to_numpy())
        fresh = (index["id"] != index["id"].shift(1)).fill_null(not continues).to_numpy()
        changes = np.flatnonzero(fresh)  # a piece may start at these rows
        start, before = 0, 0
        while True:
            # the first row that may start the next piece, the bytes before it being enough
            enough = int(np.searchsorted(ends, before + self._limit - self._bytes)) + 1
            place = int(np.searchsorted(changes, 0 if self._bytes >= self._limit else enough))
            cut = int(changes[place]) if place < len(changes) else len(ends)
            if cut > start:
                self._rows.append(Rows(path=path, group=group, start=start, stop=cut))
            if place == len(changes):
                self._bytes += int(ends[-1]) - before
                return
            self._flush()
            start, before = cut, int(ends[cut - 1]) if cut else 0

    def _flush(self) -> None:
        if self._rows:
            self._pieces.append(Piece(number=len(self._pieces), rows=tuple(self._rows)))
        self._rows, self._bytes = [], 0

    def close(self) -> list[Piece]:
        self._flush()
        return self._pieces


def read_rows(rows: Rows) -> pl.DataFrame:
    """Some rows of a row group, every byte of them checked. Raises pa.ArrowInvalid or OSError."""
    with pq.ParquetFile(rows.path) as shard:
        table = shard.read_row_group(rows.group).slice(rows.start, rows.stop - rows.start)
    table.validate(full=True)
    return pl.DataFrame(pl.from_arrow(table))


def read_piece(piece: Piece) -> Iterator[tuple[Rows, pl.DataFrame | None, pl.DataFrame]]:
    """(rows, documents, drops) for each row group of a piece: documents are None where they cannot be decoded, and then
    drops name every one, by id and path where those two can."""
    for rows in piece.rows:
        try:
            yield rows, read_rows(rows), pl.DataFrame(schema=DROPS_SCHEMA)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the file is gone or the disk is broken, not the content
            yield rows, None, _unreadable_rows(rows, error)


def _unreadable_rows(rows: Rows, error: Exception) -> pl.DataFrame:
    drops = _unreadable(rows.names, error)
    try:
        with pq.ParquetFile(rows.path) as shard:
            table = shard.read_row_group(rows.group, columns=["id", "path"]).slice(rows.start, rows.stop - rows.start)
        table.validate(full=True)
    except (pa.ArrowException, OSError):
        return drops
    return drops.with_columns(*pl.DataFrame(pl.from_arrow(table)).select("id", "path").get_columns())


def _unreadable(names: Sequence[str], error: Exception) -> pl.DataFrame:
    columns = {"id": [None] * len(names), "path": names, "reason": UNREADABLE, "detail": one_line(error)}
    return pl.DataFrame(columns, schema=DROPS_SCHEMA)


def _names(shard: str, group: int | None, rows: range) -> list[str]:
    """`part-00000.parquet#3:17` for the rows of a row group, without the group where the shard's footer is broken."""
    return [f"{shard}#{row}" if group is None else f"{shard}#{group}:{row}" for row in rows]


@contextmanager
def work_folder(parent: Path, key: str) -> Iterator[Path]:
    """The folder of this key, under a lock, for a block; gone when the block ends well or the disk is full.

    Leftovers of other keys whose owners are gone are removed first. Raises BusyError when the key is in use.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / key
    lock = _lock(folder)
    if lock is None:
        raise BusyError(f"{folder}: another process works on the same inputs and parameters; wait for it, or stop it")
    for other in parent.iterdir():
        if other.is_dir() and other != folder and (held := _lock(other)):
            _remove(other, held)
    folder.mkdir(exist_ok=True)
    for cut_short in folder.glob(".*"):
        shutil.rmtree(cut_short)
    try:
        yield folder
        _remove(folder, lock)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _remove(folder, lock)
        raise
    finally:
        lock.close()


def _lock(folder: Path) -> IO[bytes] | None:
    """An exclusive lock on a folder's name; None when somebody else has it."""
    path = folder.with_name(folder.name + ".lock")
    while True:
        lock = path.open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        if path.exists() and path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
            return lock
        lock.close()  # its owner ended, and removed it, between our two calls


def _remove(folder: Path, lock: IO[bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(folder.name + ".lock").unlink(missing_ok=True)
    lock.close()


def number_of(piece: int, row: int) -> int:
    """The number of a document."""
    return (piece << _ROW_BITS) | row


def by_piece(numbers: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(piece, rows in it) of sorted numbers, piece by piece."""
    pieces, starts = np.unique(numbers >> _ROW_BITS, return_index=True)
    rows = numbers & ((1 << _ROW_BITS) - 1)
    for piece, start, stop in zip(pieces, starts, [*starts[1:], len(rows)][: len(starts)], strict=True):
        yield int(piece), rows[start:stop]


def piece_path(folder: Path, number: int) -> Path:
    """Where a piece is."""
    return folder / f"{number:08}"


def write_piece(
    folder: Path, number: int, tables: Mapping[str, pl.DataFrame], arrays: Mapping[str, NDArray[Any]], **counts: int
) -> dict[str, Any]:
    """Write a piece as a whole; when it is there already, nothing changes. Returns its record."""
    aside = folder / f".{number:08}-{uuid.uuid4().hex[:8]}"
    aside.mkdir()
    for name, table in tables.items():
        plain = table.to_arrow(compat_level=pl.CompatLevel.oldest())
        feather.write_feather(plain, str(aside / f"{name}.arrow"), compression="lz4")
    for name, array in arrays.items():
        write_array(aside / f"{name}.npy", array)
    record = {**counts, "files": {each.name: each.stat().st_size for each in aside.iterdir()}}
    (aside / _RECORD).write_text(json.dumps(record))
    try:
        aside.rename(piece_path(folder, number))
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(aside)  # a worker that was taken for dead had written it
    return record


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Like numpy.save, which does not say when the disk is full."""
    with path.open("wb") as target:
        np.lib.format.write_array_header_2_0(target, np.lib.format.header_data_from_array_1_0(array))
        target.write(np.ascontiguousarray(array).data)


def piece_record(folder: Path, number: int) -> dict[str, Any] | None:
    """The record of a piece that is there and whole, else None; what is left of one that is not is removed."""
    path = piece_path(folder, number)
    try:
        record: dict[str, Any] = json.loads((path / _RECORD).read_text())
        if all((path / name).stat().st_size == size for name, size in record["files"].items()):
            return record
    except (OSError, ValueError, KeyError):
        pass
    shutil.rmtree(path, ignore_errors=True)
    return None


def read_table(folder: Path, piece: int, name: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """A table of a piece."""
    path = piece_path(folder, piece) / f"{name}.arrow"
    return pl.DataFrame(pl.from_arrow(feather.read_table(str(path), columns=columns, memory_map=True)))


def read_array(folder: Path, piece: int, name: str) -> NDArray[Any]:
    """An array of a piece, mapped: only what is looked at is read."""
    array: NDArray[Any] = np.load(piece_path(folder, piece) / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return array


def gather_array(folder: Path, numbers: NDArray[np.int64], name: str) -> NDArray[Any]:
    """Rows of an array for documents in the order of their numbers."""
    return np.concatenate([read_array(folder, piece, name)[rows] for piece, rows in by_piece(numbers)])


def gather_table(folder: Path, numbers: NDArray[np.int64], columns: Sequence[str]) -> pl.DataFrame:
    """Some columns for documents in the order of their numbers."""
    return pl.concat(read_table(folder, piece, "documents", columns)[rows] for piece, rows in by_piece(numbers))
