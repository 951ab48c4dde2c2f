"""A data set as the `datasets` library finds it: a pinned commit of one on the Hub, or a folder laid out like one.

Covers: configurations, splits and patterns of files as the data set's card states them; Parquet and JSON row by row as
the sources of these kinds read them, CSV and text as the library does; one file at a time, so that a file with other
columns, or one that cannot be read, is left and the others are not.
Nothing of the data set is run: no loading scripts, no pickles, no extension types.
Not covered: files that are compressed as a whole (left: the sources jsonl and s3 bound what they grow to), a line of
CSV that breaks its form (the rest of its file is left), resuming in the middle of a stream (datasets 5.0 began again
from zero), data sets that need a password of their own.
"""

import codecs
import hashlib
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import pyarrow as pa
from datasets.data_files import DataFilesDict, DataFilesList
from datasets.packaged_modules.csv.csv import Csv
from datasets.packaged_modules.json.json import Json
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.packaged_modules.text.text import Text
from datasets.utils.file_utils import xopen

from components.core.artifact import sha256_of
from components.core.errors import ConfigError, DataError, one_line
from components.data.sources.config import HuggingFaceSource
from components.data.sources.jsonl import LINE_BYTES_PER_TEXT_BYTE, lines, rows_of
from components.data.sources.parquet import checked, read_rows
from components.data.sources.reading.cells import ColumnError
from components.data.sources.reading.document_batch import Batch, left_rows
from components.data.sources.reading.rows import Rows, parsed
from components.data.sources.reading.still import Remote, Still
from components.data.sources.reading.table import documents_of

_BUILDERS = (Parquet, Json, Csv, Text)
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".7z", ".rar", ".tar", ".tgz")
_ROWS = 1_000
_HEAD_BYTES = 1_000
_CHUNK_BYTES = 1_000_000
# What the library's parsers raise for what a file holds.
_UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    pa.ArrowException,
    datasets.exceptions.DatasetsError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _DataFile:
    """A file of the split: where the library finds it, and its path in the data set, None for one that is elsewhere."""

    address: str
    origin: Any
    path: str | None


def read(config: HuggingFaceSource) -> Iterator[Batch]:
    """The rows of the split, file by file. Raises DataError or ConfigError when the data set cannot be opened."""
    with tempfile.TemporaryDirectory() as cache:
        builder = _open(config, cache)
        files = _files(builder, config)
        version = config.revision or _digest(files)
        labelled = config.model_copy(
            update={"version": config.version or version, "package": config.package or _package(config.dataset)}
        )
        for file in files:
            yield from _read_file(builder, file, labelled)


def _open(config: HuggingFaceSource, cache: str) -> Any:
    """The library's builder for the data set, one of those that only parse."""
    if not Path(config.dataset).is_dir() and config.revision is None:
        raise ConfigError(
            f"ingest.sources: {config.dataset} is no folder, so it is a data set of the Hub, and revision is absent; "
            "name the commit to read, 40 hex digits: the data set's page lists them under Files, History"
        )
    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # it logs what it raises
    datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(
            config.dataset,
            config.config_name,
            data_files={config.split: list(config.data_files)} if config.data_files else None,
            revision=config.revision,
            cache_dir=cache,
        )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"ingest.sources: {config.dataset}: cannot be opened: {one_line(error)}") from error
    if not isinstance(builder, _BUILDERS):
        raise DataError(
            f"ingest.sources: {config.dataset}: its files are read as {builder.name}, needed parquet, json, csv or "
            "text; choose among its files with data_files"
        )
    if isinstance(builder, Text):
        builder.config.sample_by = "document"
    if isinstance(builder, Csv):  # a cell is text: 007 is no number, and NA may be a name
        builder.config.dtype, builder.config.keep_default_na = str, False
    return builder


def _files(builder: Any, config: HuggingFaceSource) -> list[_DataFile]:
    """The files of the split in the order of their paths."""
    splits = builder.config.data_files or {}
    if config.split not in splits:
        raise DataError(
            f"ingest.sources: {config.dataset}: found the splits {', '.join(sorted(map(str, splits))) or 'none'}, "
            f"needed {config.split}; correct split"
        )
    chosen = splits[config.split]
    files = []
    for number, address in enumerate(chosen):
        origin = chosen.origin_metadata[number : number + 1]
        files.append(_DataFile(address=address, origin=origin, path=_path(address, config)))
    return sorted(files, key=lambda each: (each.path or "", each.address))


def _path(address: str, config: HuggingFaceSource) -> str | None:
    """The path of a file in its data set; None when a card, or a link, points out of it."""
    if (root := Path(config.dataset).resolve()).is_dir():
        location = Path(address).resolve()
        return location.relative_to(root).as_posix() if location.is_relative_to(root) else None
    path = address.removeprefix(f"hf://datasets/{config.dataset}@{config.revision}/")
    return None if path == address or ".." in PurePosixPath(path).parts else path


def _digest(files: list[_DataFile]) -> str:
    """One digest for the files of a folder, so that its version says what was read."""
    total = hashlib.sha256()
    for each in files:
        if each.path is not None:
            total.update(f"{each.path}\0{sha256_of(Path(each.address))}\n".encode())
    return total.hexdigest()


def _package(dataset: str) -> str:
    """owner/name as it is, the name of a folder."""
    return Path(dataset).resolve().name if Path(dataset).is_dir() else dataset


def _read_file(builder: Any, file: _DataFile, config: HuggingFaceSource) -> Iterator[Batch]:
    """The rows of one file, or the reason why it gives none."""
    if refusal := _refusal(file):
        yield Batch(left=left_rows([(file.path or file.address, *refusal)]))
        return
    assert file.path is not None
    try:
        with _opened(file, config) as opened:
            if isinstance(builder, Parquet):
                yield from read_rows(opened, config, file.path)
            elif isinstance(builder, Json) and builder.config.encoding.lower() in ("utf-8", "utf8"):
                yield from _json_rows(opened, builder, config, file.path)
            else:
                yield from _streamed(opened, builder, file, config)
    except ColumnError as error:
        yield Batch(left=left_rows([(file.path, error.reason, error.detail)]))
    except OSError as error:
        raise DataError(
            f"ingest.sources: {config.dataset}: {file.path} cannot be read on: {one_line(error)}; run it again"
        ) from error


def _opened(file: _DataFile, config: HuggingFaceSource) -> Still | Remote:
    """A file of a folder, which may change, or of a commit, which does not."""
    if Path(file.address).is_file():
        return Still(Path(file.address))
    return Remote(xopen(file.address, "rb"), f"ingest.sources: {config.dataset}: {file.path}")


def _json_rows(opened: Still | Remote, builder: Any, config: HuggingFaceSource, name: str) -> Iterator[Batch]:
    """Lines of JSON, or one list of rows, which the card may put into a field of an object."""
    rows = Rows(config, name, first=0, batch_rows=_ROWS)
    start = opened.file.read(_HEAD_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
    opened.file.seek(0)
    if builder.config.field is None and not start.startswith(b"["):
        longest = config.max_document_bytes * LINE_BYTES_PER_TEXT_BYTE
        numbered = lines(iter(partial(opened.file.read, _CHUNK_BYTES), b""), longest)
        yield from rows_of(opened, ((number - 1, line) for number, line in numbered), rows)
        return
    whole = parsed(opened.file.read().removeprefix(codecs.BOM_UTF8))
    if opened.changed:
        raise ColumnError("changed", "while it was read")
    if builder.config.field is not None:
        whole = whole.get(builder.config.field) if isinstance(whole, dict) else None
    if not isinstance(whole, list):
        raise ColumnError("malformed", f"found {type(whole).__name__}, needed a list of objects")
    for number, row in enumerate(whole):
        rows.take(number, {"text": row} if isinstance(row, str) else row)
        if rows.is_full:
            yield rows.batch()
    yield rows.batch()


def _streamed(opened: Still | Remote, builder: Any, file: _DataFile, config: HuggingFaceSource) -> Iterator[Batch]:
    """Rows as the library gives them, for the formats that it alone reads: CSV and text."""
    assert file.path is not None
    builder.config.data_files = DataFilesDict({config.split: DataFilesList([file.address], file.origin)})
    builder.info.features = None  # those of the file before
    row = 0
    try:
        stream = builder.as_streaming_dataset(split=config.split).with_format("arrow")
        for table in stream.iter(batch_size=_ROWS):
            for batch in table.combine_chunks().to_batches():
                if opened.changed:
                    yield Batch(left=left_rows([(file.path, "changed", f"from row {row} on")]))
                    return
                yield documents_of(checked(batch), config, name=file.path, first_row=row)
                row += batch.num_rows
    except UnicodeDecodeError as error:
        yield Batch(left=left_rows([(file.path, "not_utf8", f"from row {row} on: {one_line(error)}")]))
    except _UNREADABLE as error:
        yield Batch(left=left_rows([(file.path, "corrupt_file", f"from row {row} on: {one_line(error)}")]))


def _refusal(file: _DataFile) -> tuple[str, str] | None:
    """(reason, detail) of a file that is not to be opened."""
    if file.path is None:
        return "unsafe_path", "lies outside of the data set"
    if file.path.lower().endswith(_COMPRESSED) or "::" in file.address:
        return "compressed", "read it with a source of kind jsonl or s3, which bound what it grows to"
    return None
