"""Rows of Parquet files, a slice of a row group at a time, in the column shapes that the config names.

Covers: files that are no Parquet, a row group that cannot be decoded (the others are read), columns that are absent or
of another type, extension types (refused: reading one may run code of its own), text that is not UTF-8, a file that
changes while it is read.
Strings stay in their dictionaries until a few megabytes of them are taken: a kilobyte may stand for terabytes.
Not covered: encrypted files; one page that alone is larger than memory; nested columns that grow so.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.core.errors import DataError, one_line
from components.data.documents.document import cut
from components.data.sources.config import ParquetSource, TableSource
from components.data.sources.reading.arrow_types import extension_type_in
from components.data.sources.reading.cells import ColumnError
from components.data.sources.reading.document_batch import BATCH_BYTES, Batch, left_rows
from components.data.sources.reading.files import printable
from components.data.sources.reading.still import Remote, Still
from components.data.sources.reading.table import columns_of, documents_of, is_plain_text, is_text, needed

_ROWS = 2_000
# A row that is a text of its own takes more than a byte; of fewer rows than these nothing can be said.
_FREE_ROWS = 10_000
_UNREADABLE = (OSError, pa.ArrowException, ValueError)


def read(config: ParquetSource) -> Iterator[Batch]:
    """The rows of every file, in the order of their names. Raises DataError for a path without Parquet files."""
    for name, location in tables(config.paths, (".parquet",)):
        yield from read_table(location, config, name)


def tables(paths: Sequence[str], suffixes: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """(name, location) of files and of those below directories; a name is relative to what the config says."""
    for entry in paths:
        path = Path(entry)
        if path.is_dir():
            files = sorted(each for each in path.rglob("*") if each.name.endswith(suffixes) and each.is_file())
        else:
            files = [path] if path.is_file() else []
        if not files:
            raise DataError(
                f"ingest.sources: {entry}: found no file that ends in {' or '.join(suffixes)}; correct paths"
            )
        for location in files:
            yield printable(location.relative_to(path).as_posix() if path.is_dir() else location.name), location


def read_table(location: Path, config: TableSource, name: str) -> Iterator[Batch]:
    """The rows of one file; a file, a row group, a column or a row that cannot be used is left with its reason."""
    try:
        with Still(location) as still:
            yield from read_rows(still, config, name)
    except OSError as error:
        yield Batch(left=left_rows([(name, "unreadable", one_line(error))]))


def read_rows(still: Still | Remote, config: TableSource, name: str) -> Iterator[Batch]:
    """The rows of an open file, as read_table gives them."""
    try:
        if named := extension_type_in(still.file):
            raise ColumnError("extension_type", f"declares the Arrow extension type {named}")
        with pq.ParquetFile(still.file, page_checksum_verification=True) as table:
            names = needed(config, table.schema_arrow)
            if table.metadata.num_rows > max(_FREE_ROWS, still.size_bytes):
                raise ColumnError("zip_bomb", f"{table.metadata.num_rows} rows in {still.size_bytes} bytes")
            strings = [each for each in names if is_plain_text(table.schema_arrow.field(each).type)]
            table = pq.ParquetFile(
                still.file, metadata=table.metadata, read_dictionary=strings, page_checksum_verification=True
            )
            row = 0
            for group in range(table.num_row_groups):
                yield from _read_group(table, group, names, config, name, row, still)
                if still.changed:
                    yield Batch(left=left_rows([(name, "changed", f"from row {row} of row group {group} on")]))
                    return
                row += table.metadata.row_group(group).num_rows
    except ColumnError as error:
        yield Batch(left=left_rows([(name, error.reason, error.detail)]))
    except _UNREADABLE as error:
        yield Batch(left=left_rows([(name, "corrupt_file", one_line(error))]))


def _read_group(
    table: pq.ParquetFile, group: int, names: list[str], config: TableSource, name: str, row: int, still: Still | Remote
) -> Iterator[Batch]:
    """The rows of a row group; from the first that cannot be decoded on they are left, as one line."""
    text = columns_of(config, table.schema_arrow.names).get("text", "")
    done = 0
    too_large: list[tuple[str, str, str]] = []
    try:
        for batch in table.iter_batches(batch_size=_ROWS, row_groups=[group], columns=names):
            for start, rows in _pieces(batch.select(names), text, config.max_document_bytes):
                if still.changed:
                    return
                if isinstance(rows, int):
                    detail = f"{rows} bytes, allowed {config.max_document_bytes}"
                    too_large.append((f"{name}:{row + done + start}", "too_large", detail))
                else:
                    yield documents_of(rows, config, name=name, first_row=row + done + start)
            done += batch.num_rows
            if too_large:
                yield Batch(left=left_rows(too_large))
                too_large = []
    except _UNREADABLE as error:
        detail = f"rows {row + done} to {row + table.metadata.row_group(group).num_rows - 1}: {one_line(error)}"
        yield Batch(left=left_rows([(f"{name}#{group}", "corrupt_row_group", detail)]))


def _pieces(batch: pa.RecordBatch, text: str, longest: int) -> Iterator[tuple[int, pa.RecordBatch | int]]:
    """(first row, rows) of a batch in pieces of a few megabytes; (row, its bytes) for a text longer than `longest`."""
    columns = {field.name: _checked(column) for field, column in zip(batch.schema, batch.columns, strict=True)}
    lengths = {
        name: _lengths(column)
        for name, column in columns.items()
        if isinstance(column, pa.DictionaryArray) and is_text(column.type)
    }
    too_long = lengths[text] > longest if text in lengths else np.zeros(batch.num_rows, dtype=bool)
    sizes = np.sum([*lengths.values(), np.zeros(batch.num_rows, dtype=np.int64)], axis=0) * ~too_long
    for piece in cut(pl.Series(sizes), BATCH_BYTES):
        start = piece.start
        for row in [*(np.flatnonzero(too_long[piece]) + piece.start).tolist(), piece.stop]:
            if row > start:
                rows = {name: _written_out(column.slice(start, row - start)) for name, column in columns.items()}
                yield start, pa.record_batch(rows)
            if row < piece.stop:
                yield row, int(lengths[text][row])
            start = row + 1


def _lengths(column: pa.DictionaryArray) -> NDArray[np.int64]:
    """The bytes of each value, 0 for null."""
    each = pc.fill_null(pc.cast(pc.binary_length(column.dictionary), pa.int64()), 0)
    lengths: NDArray[np.int64] = pc.fill_null(each.take(column.indices), 0).to_numpy(zero_copy_only=False)
    return lengths


def _written_out(column: pa.Array) -> pa.Array:
    """A column without its dictionary."""
    return column.dictionary.take(column.indices) if isinstance(column, pa.DictionaryArray) else column


def checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch that is what its types say, its strings as bytes that are yet to be decoded: Arrow does not check them.

    Raises ArrowInvalid when it is not.
    """
    return pa.record_batch([_checked(column) for column in batch.columns], names=batch.schema.names)


def _checked(column: pa.Array) -> pa.Array:
    if isinstance(column, pa.DictionaryArray):
        column = pa.DictionaryArray.from_arrays(column.indices, _checked(column.dictionary))
    else:
        column = column.cast(_undecoded(column.type))
    column.validate(full=True)
    return column


def _undecoded(kind: pa.DataType) -> pa.DataType:
    """A type with bytes in the place of strings, at any depth."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_undecoded(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_undecoded(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_undecoded(kind.value_type)))
    if pa.types.is_map(kind):
        return pa.map_(_undecoded(kind.key_type), _undecoded(kind.item_type))
    return kind
