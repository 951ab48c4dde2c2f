"""A data set as the `datasets` library streams it: a pinned commit of one on the Hub, or a folder laid out like one.

Covers: configurations, splits and patterns of files as the data set's card states them; Parquet, JSON, CSV and text;
one file at a time, so that a file with other columns, or one that cannot be read, is left and the others are not.
Nothing of the data set is run: no loading scripts, no pickles, no extension types.
Not covered: files that are compressed as a whole (left: the sources jsonl and s3 bound what they grow to), a Parquet
file whose pages grow beyond memory, resuming in the middle of a stream (datasets 5.0 began again from zero), data sets
that need a password of their own.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import polars as pl
from datasets.data_files import DataFilesDict, DataFilesList
from datasets.packaged_modules.csv.csv import Csv
from datasets.packaged_modules.json.json import Json
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.packaged_modules.text.text import Text
from datasets.utils.file_utils import xopen

from components.core.artifact import sha256_of
from components.core.errors import ConfigError, DataError
from components.data.sources.arrow_types import extension_type_in
from components.data.sources.batch import Batch, left_rows
from components.data.sources.config import HuggingFaceSource
from components.data.sources.parquet import checked_frame, one_line
from components.data.sources.table import ColumnError, documents_of

_BUILDERS = (Parquet, Json, Csv, Text)
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".7z", ".rar", ".tar", ".tgz")
_ROWS = 1_000


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
    if isinstance(builder, Parquet):
        builder.config.batch_size = _ROWS
    if isinstance(builder, Text):
        builder.config.sample_by = "document"
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
    found = []
    for number, address in enumerate(chosen):
        origin = chosen.origin_metadata[number : number + 1]
        found.append(_DataFile(address=address, origin=origin, path=_path(address, config)))
    return sorted(found, key=lambda each: (each.path or "", each.address))


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
    if refusal := _refusal(builder, file):
        yield Batch(left=left_rows([(file.path or file.address, *refusal)]))
        return
    assert file.path is not None
    builder.config.data_files = DataFilesDict({config.split: DataFilesList([file.address], file.origin)})
    builder.info.features = None  # those of the file before
    row = 0
    unchanged = _watch(file.address)
    try:
        stream = builder.as_streaming_dataset(split=config.split).with_format("arrow")
        for table in stream.iter(batch_size=_ROWS):
            frames = [checked_frame(batch) for batch in table.combine_chunks().to_batches()]
            frame = pl.concat(frames)
            if not unchanged():
                yield Batch(left=left_rows([(file.path, "changed", f"from row {row} on")]))
                return
            yield documents_of(frame, config, name=file.path, first_row=row)
            row += frame.height
    except ColumnError as error:
        yield Batch(left=left_rows([(file.path, error.reason, error.detail)]))
    except UnicodeDecodeError as error:
        yield Batch(left=left_rows([(file.path, "not_utf8", f"from row {row} on: {one_line(error)}")]))
    except (ValueError, TypeError, KeyError) as error:
        yield Batch(left=left_rows([(file.path, "corrupt_file", f"from row {row} on: {one_line(error)}")]))
    except OSError as error:
        raise DataError(
            f"ingest.sources: {config.dataset}: {file.path} cannot be read on: {one_line(error)}; run it again"
        ) from error


def _watch(address: str) -> Callable[[], bool]:
    """Tells whether a file of a folder still is as it was; a file of a commit always is."""
    location = Path(address)
    if not location.is_file():
        return lambda: True
    before = location.stat()
    return lambda: location.exists() and _state(location.stat()) == _state(before)


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _refusal(builder: Any, file: _DataFile) -> tuple[str, str] | None:
    """(reason, detail) of a file that the library must not see."""
    if file.path is None:
        return "unsafe_path", "lies outside of the data set"
    if file.path.lower().endswith(_COMPRESSED) or "::" in file.address:
        return "compressed", "read it with a source of kind jsonl or s3, which bound what it grows to"
    if isinstance(builder, Parquet):
        with xopen(file.address, "rb") as opened:
            if named := extension_type_in(opened):
                return "extension_type", named
    return None
