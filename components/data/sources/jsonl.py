"""Lines of JSON, plain or compressed, in the column shapes that the config names.

Covers: lines that are no JSON object (left as file:line), texts that are not strings or hold lone surrogates, lines and
files that grow without end when they are decompressed, files that are cut off, a file that changes while it is read.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from components.data.sources.batch import BATCH_BYTES, BATCH_ROWS, BATCH_SCHEMA, Batch, left_rows
from components.data.sources.config import Columns, JsonlSource
from components.data.sources.parquet import one_line, tables
from components.data.sources.still import Still
from components.data.sources.table import (
    ANSWERS,
    ANSWERS_TYPE,
    QUESTION,
    ColumnError,
    columns_of,
    composes,
    documents_of,
    question_and_answers,
)

_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_CHUNK_BYTES = 1_000_000
# A bomb is judged once it has grown beyond this, so that small and very repetitive files are no bombs.
_FREE_BYTES = 64_000_000
# A text may be escaped to six times its size, and has company on its line.
_LINE_BYTES_PER_TEXT_BYTE = 7


class _BombError(Exception):
    """A file that grew beyond its bound."""


def read(config: JsonlSource) -> Iterator[Batch]:
    """The lines of every file, in the order of their names. Raises DataError for a path without such files."""
    for name, location in tables(config.paths, _SUFFIXES):
        yield from read_lines(location, config, name)


def read_lines(location: Path, config: JsonlSource, name: str) -> Iterator[Batch]:
    """The lines of one file; lines, and what follows in a file that cannot be read on, are left with their reason."""
    gathering = _Lines(config, name)
    ended = ""
    try:
        with Still(location) as still:
            for line, content in _lines(still, location, config):
                gathering.add(line, content)
                if gathering.is_full:
                    batch = gathering.batch()
                    if still.changed:
                        break
                    yield batch
            if still.changed:
                yield Batch(left=left_rows([(name, "changed", f"from line {gathering.first_line} on")]))
                return
    except _BombError as error:
        reason, ended = "zip_bomb", str(error)
    except (OSError, EOFError, pa.ArrowException) as error:
        reason, ended = "corrupt_file", one_line(error)
    yield gathering.batch()
    if ended:
        yield Batch(left=left_rows([(name, reason, f"from line {gathering.first_line} on: {ended}")]))


def _lines(still: Still, location: Path, config: JsonlSource) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line) of a file; None for a line that is too long to hold."""
    longest = config.max_document_bytes * _LINE_BYTES_PER_TEXT_BYTE + _CHUNK_BYTES
    number, size = 1, 0
    parts: list[bytes] = []
    for chunk in _chunks(still, location, config.max_decompressed_ratio):
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            yield number, (b"".join([*parts, piece]) if size + len(piece) <= longest else None)
            number, parts, size = number + 1, [], 0
        size += len(rest)
        if size <= longest:
            parts.append(rest)
        else:
            parts = []
    if size:
        yield number, (b"".join(parts) if size <= longest else None)


def _chunks(still: Still, location: Path, ratio: float) -> Iterator[bytes]:
    """The decompressed bytes of a file. Raises _BombError when they are far more than the file has."""
    compression = _COMPRESSIONS.get(location.suffix)
    bound = max(_FREE_BYTES, int(ratio * still.size_bytes)) if compression else None
    source = pa.PythonFile(still.file, mode="r")
    stream = pa.CompressedInputStream(source, compression) if compression else source
    total = 0
    while chunk := stream.read(_CHUNK_BYTES):
        total += len(chunk)
        if bound is not None and total > bound:
            raise _BombError(f"{still.size_bytes} bytes grew beyond {bound}, allowed {ratio:g} times the size")
        yield chunk


class _Lines:
    """Parsed lines on their way into one batch."""

    def __init__(self, config: JsonlSource, name: str) -> None:
        self.first_line = 1
        self._config = config
        self._name = name
        # Rows are plain once their fields are taken out of their objects.
        text = "text" if config.shape == "stackexchange" else None
        plain = {"shape": "plain", "columns": Columns(), "language": config.language or text}
        self._plain = config.model_copy(update=plain)
        self._rows: list[tuple[str | None, ...]] = []
        self._questions: list[tuple[int, str | None, Any]] = []  # with the row that each is the text of
        self._left: list[tuple[str, str, str]] = []
        self._columns: dict[tuple[str, ...], dict[str, str]] = {}
        self._next_line = 1
        self._bytes = 0

    def add(self, number: int, content: bytes | None) -> None:
        """Parse one line; what is no JSON object with a text is left as file:line."""
        self._next_line = number + 1
        self._bytes += len(content or b"")
        if content is None:
            self._leave(number, "too_large", "a line too long to hold")
        elif content.strip():
            try:
                row = json.loads(content.decode())
                if b"\\u" in content:
                    json.dumps(row, ensure_ascii=False).encode()  # a lone surrogate can only come in as an escape
                self._take(number, row)
            except ColumnError as error:
                self._leave(number, error.reason, error.detail)
            except UnicodeError as error:
                self._leave(number, "not_utf8", one_line(error))
            except (ValueError, RecursionError) as error:
                self._leave(number, "malformed", one_line(error))

    def _take(self, number: int, row: Any) -> None:
        if not isinstance(row, dict):
            raise ColumnError("malformed", f"found {type(row).__name__}, needed an object")
        names = tuple(row)
        if names not in self._columns:
            self._columns[names] = columns_of(self._config, names)
        values = {field: _value(row, column) for field, column in self._columns[names].items()}
        text = values.get("text")
        if text is not None and not isinstance(text, str):
            raise ColumnError("wrong_type", f"the text is {type(text).__name__}, needed a string")
        if composes(self._config, names):
            self._questions.append((len(self._rows), _label(row[QUESTION]), row[ANSWERS]))
        values["path"] = values.get("path") or f"{self._name}:{number}"
        self._rows.append((text, *(_label(values.get(field)) for field in BATCH_SCHEMA if field != "text")))

    def _leave(self, number: int, reason: str, detail: str) -> None:
        self._left.append((f"{self._name}:{number}", reason, detail))

    @property
    def is_full(self) -> bool:
        """Whether it is time to make a batch."""
        return self._bytes >= BATCH_BYTES or len(self._rows) >= BATCH_ROWS or len(self._left) >= BATCH_ROWS

    def batch(self) -> Batch:
        """What was gathered, as columns; the next batch starts empty."""
        frame = pl.DataFrame(self._rows, schema=BATCH_SCHEMA, orient="row")
        if self._questions:
            rows, questions, answers = zip(*self._questions, strict=True)
            asked = pl.DataFrame(
                {
                    QUESTION: pl.Series(questions, dtype=pl.String),
                    ANSWERS: pl.Series(answers, dtype=ANSWERS_TYPE, strict=False),
                }
            )
            frame = frame.with_columns(text=frame["text"].scatter(list(rows), question_and_answers(asked)))
        made = documents_of(frame, self._plain, name=self._name)
        left = pl.concat([left_rows(self._left), made.left])
        self._rows, self._questions, self._left, self._bytes = [], [], [], 0
        self.first_line = self._next_line
        return Batch(made.documents, left)


def _value(row: Any, column: str) -> Any:
    """A value of an object, or of one inside it; None where there is none."""
    if column in row:
        return row[column]
    for part in column.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def _label(value: Any) -> str | None:
    """Any value that is not the text as a string that can be written: a list of names is all of them."""
    if isinstance(value, list):
        value = " AND ".join(sorted({str(each) for each in value if each is not None}))
    return None if value in (None, "") else str(value)
