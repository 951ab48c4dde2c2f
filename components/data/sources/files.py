"""Files as documents: read and hashed in threads, a subset chosen by hash, then its texts in the order of their ids.

Two passes, so that a source larger than memory works: the first keeps 32 bytes a file, the second reads what was
chosen (from the page cache, when it fits there).
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from components.core.errors import DataError
from components.data.documents import SCHEMA

_THREADS = 8
_BATCH_FILES = 2_000
_TEXT_BATCH_BYTES = 16_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file that may become a document. `location` is where it lies now, `path` what it is called in the data."""

    location: Path
    path: str
    package: str
    version: str
    licence: str
    language: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The files of a source, and how many were left for which reason."""

    files: Sequence[SourceFile]
    left: Counter[str]


def read_text(location: Path) -> str:
    """The text of a file with every byte kept. Raises OSError, and UnicodeDecodeError when it is not UTF-8."""
    return location.read_bytes().decode("utf-8")


def index_files(
    found: Found, *, max_document_bytes: int, progress: Callable[[int, int], None]
) -> tuple[pl.DataFrame, Counter[str]]:
    """One row per usable file: file (its number), id, path, bytes; and the files left, by reason.

    Reasons: unreadable, not_utf8, empty (nothing but white space), too_large.
    """
    left = Counter(found.left)
    rows: list[tuple[int, str, str, int]] = []

    def index(number: int) -> tuple[int, str, str, int] | str:
        file = found.files[number]
        try:
            if file.location.stat().st_size > max_document_bytes:
                return "too_large"
            content = file.location.read_bytes()
        except OSError:
            return "unreadable"
        if not content.strip():
            return "empty"
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            return "not_utf8"
        return number, hashlib.sha256(content).hexdigest(), file.path, len(content)

    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(found.files), _BATCH_FILES):
            numbers = range(start, min(start + _BATCH_FILES, len(found.files)))
            for result in pool.map(index, numbers):
                if isinstance(result, str):
                    left[result] += 1
                else:
                    rows.append(result)
            progress(numbers.stop, len(found.files))
    schema = {"file": pl.Int64, "id": pl.String, "path": pl.String, "bytes": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row"), left


def read_files(found: Found, chosen: pl.DataFrame, source: str) -> Iterator[pl.DataFrame]:
    """The documents of the chosen rows in their order, a batch at a time.

    Raises DataError when a file is no longer what was indexed.
    """
    batch: list[tuple[str | int, ...]] = []
    size = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, chosen.height, _BATCH_FILES):
            rows = chosen[start : start + _BATCH_FILES]
            numbers, ids, sizes = rows["file"].to_list(), rows["id"].to_list(), rows["bytes"].to_list()
            texts = pool.map(lambda number, wanted: _unchanged(found.files[number], wanted), numbers, ids)
            for number, identity, bytes_, text in zip(numbers, ids, sizes, texts, strict=True):
                file = found.files[number]
                batch.append(
                    (identity, text, file.path, file.package, file.version, file.licence, file.language, source, bytes_)
                )
                size += bytes_
                if size >= _TEXT_BATCH_BYTES:
                    yield pl.DataFrame(batch, schema=SCHEMA, orient="row")
                    batch, size = [], 0
    if batch:
        yield pl.DataFrame(batch, schema=SCHEMA, orient="row")


def _unchanged(file: SourceFile, wanted: str) -> str:
    """The text of a file, after checking that it still is the text that was indexed."""
    try:
        content = file.location.read_bytes()
    except OSError as error:
        raise DataError(
            f"{file.location}: was read before and cannot be now ({error.strerror}); run ingest again"
        ) from error
    if hashlib.sha256(content).hexdigest() != wanted:
        raise DataError(f"{file.location}: changed while it was being read; run ingest again when it is at rest")
    return content.decode("utf-8")
