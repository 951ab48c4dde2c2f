"""Rows of Parquet files, a slice of a row group at a time, in the column shapes that the config names.

Covers: files that are no Parquet, a row group that cannot be decoded (the others are read), columns that are absent or
of another type, extension types (refused: reading one may run code of its own), text that is not UTF-8, a file that
changes while it is read.
Not covered: encrypted files.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from components.core.errors import DataError
from components.data.sources.arrow_types import extension_type
from components.data.sources.batch import Batch, left_rows
from components.data.sources.config import ParquetSource, TableSource
from components.data.sources.still import Still
from components.data.sources.table import ColumnError, documents_of, needed

_ROWS = 2_000
_UNREADABLE = (OSError, pa.ArrowException, ValueError)


def read(config: ParquetSource) -> Iterator[Batch]:
    """The rows of every file, in the order of their names. Raises DataError for a path without Parquet files."""
    for name, location in tables(config.paths, (".parquet",)):
        yield from read_table(location, config, name)


def tables(paths: Sequence[str], suffixes: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """(name, location) of files and of those below directories; a name is relative to what the config says."""
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found = sorted(each for each in path.rglob("*") if each.name.endswith(suffixes) and each.is_file())
        else:
            found = [path] if path.is_file() else []
        if not found:
            raise DataError(
                f"ingest.sources: {given}: found no file that ends in {' or '.join(suffixes)}; correct paths"
            )
        for location in found:
            yield location.relative_to(path).as_posix() if path.is_dir() else location.name, location


def read_table(location: Path, config: TableSource, name: str) -> Iterator[Batch]:
    """The rows of one file; a file, a row group or a column that cannot be used is left with its reason."""
    try:
        if named := extension_type(location):
            raise ColumnError("extension_type", f"declares the Arrow extension type {named}")
        with Still(location) as still, pq.ParquetFile(still.file, page_checksum_verification=True) as table:
            schema = table.schema_arrow
            names = needed(config, schema.names)
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
    table: pq.ParquetFile, group: int, names: list[str], config: TableSource, name: str, row: int, still: Still
) -> Iterator[Batch]:
    """The rows of a row group; from the first that cannot be decoded on they are left, as one line."""
    batches = table.iter_batches(batch_size=_ROWS, row_groups=[group], columns=names)
    done = 0
    try:
        for batch in batches:
            frame = checked_frame(batch)
            if still.changed:
                return
            yield documents_of(frame, config, name=name, first_row=row + done)
            done += batch.num_rows
    except _UNREADABLE as error:
        detail = f"rows {row + done} to {row + table.metadata.row_group(group).num_rows - 1}: {one_line(error)}"
        yield Batch(left=left_rows([(f"{name}#{group}", "corrupt_row_group", detail)]))


def checked_frame(batch: pa.RecordBatch) -> pl.DataFrame:
    """An Arrow batch as columns, its strings as bytes that are yet to be decoded: Arrow does not check them.

    Raises ArrowInvalid when anything else is not what its type says.
    """
    columns = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            column = column.cast(pa.large_binary())
        column.validate(full=True)
        columns[field.name] = column
    return pl.DataFrame(pl.from_arrow(pa.table(columns)))


def one_line(error: Exception) -> str:
    """An error's text as one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]
