"""Rows of JSON on their way into one batch of documents: each is taken by itself, and left by itself.

Covers: a line that is no JSON, or no object; text that is not UTF-8, lone surrogates in escapes; numbers and nesting
beyond what Python reads; a byte order mark before the first row; values of any type
(components.data.sources.reading.cells).
"""

import codecs
import json
from typing import Any

import polars as pl

from components.data.sources.config import TableSource
from components.data.sources.reading.cells import ColumnError, content_of, label_of, question_and_answers
from components.data.sources.reading.document_batch import BATCH_BYTES, BATCH_SCHEMA, Batch, left_rows
from components.data.sources.reading.table import ANSWERS, QUESTION, columns_of, composes, described

_PLACE = "place"
# Sets of keys whose columns are remembered; a table with others in every row must not fill the memory.
_REMEMBERED = 1_000


class Rows:
    """Parsed rows of one table. `first` is the number of the first row of the batch at hand."""

    def __init__(self, config: TableSource, name: str, *, batch_rows: int, first: int = 1) -> None:
        self.name = name
        self.first = first
        self._config = config
        self._start = first
        self._batch_rows = batch_rows
        self._rows: list[tuple[str | None, ...]] = []
        self._left: list[tuple[str, str, str]] = []
        self._columns: dict[tuple[str, ...], dict[str, str]] = {}
        self._next = first
        self._bytes = 0

    def parse(self, number: int, content: bytes | None) -> None:
        """Take the row of one line; None stands for a line that was too long to hold, and a blank one is no row."""
        self._bytes += len(content or b"")
        if content is None:
            self._leave(number, "too_large", "a line too long to hold")
            return
        if number == self._start:
            content = content.removeprefix(codecs.BOM_UTF8)
        try:
            if content.strip():
                self._add(number, parsed(content), escapes=b"\\u" in content)
        except ColumnError as error:
            self._leave(number, error.reason, error.detail)
        self._next = number + 1

    def take(self, number: int, row: Any) -> None:
        """Take a row that was parsed already."""
        try:
            self._add(number, row, escapes=True)
        except ColumnError as error:
            self._leave(number, error.reason, error.detail)

    def _add(self, number: int, row: Any, *, escapes: bool) -> None:
        if not isinstance(row, dict):
            raise ColumnError("malformed", f"found {type(row).__name__}, needed an object")
        columns = self._columns_of(row)
        values = {field: label_of(_inside(row, name), field) for field, name in columns.items() if field != "text"}
        if composes(self._config, row):
            values["text"] = question_and_answers(row[QUESTION], row[ANSWERS])
        else:
            values["text"] = content_of(_inside(row, columns["text"]))
        fields = tuple(values.get(field) for field in BATCH_SCHEMA)
        if escapes:
            _check_surrogates(fields)
        self._rows.append((*fields, f"{self.name}:{number}"))
        self._next = number + 1

    def _columns_of(self, row: dict[str, Any]) -> dict[str, str]:
        names = tuple(row)
        if names not in self._columns:
            if len(self._columns) >= _REMEMBERED:
                self._columns.clear()
            self._columns[names] = columns_of(self._config, names)
        return self._columns[names]

    def _leave(self, number: int, reason: str, detail: str) -> None:
        self._left.append((f"{self.name}:{number}", reason, detail))
        self._next = number + 1

    @property
    def is_full(self) -> bool:
        """Whether it is time to make a batch."""
        return self._bytes >= BATCH_BYTES or max(len(self._rows), len(self._left)) >= self._batch_rows

    def batch(self) -> Batch:
        """What was gathered, as columns; the next batch starts empty."""
        rows = pl.DataFrame(self._rows, schema={**BATCH_SCHEMA, _PLACE: pl.String}, orient="row")
        made = Batch(described(rows.drop(_PLACE), self._config, self.name, rows[_PLACE]), left_rows(self._left))
        self._rows, self._left, self._bytes = [], [], 0
        self.first = self._next
        return made


def parsed(content: bytes) -> Any:
    """The value of a line. Raises ColumnError (not_utf8, malformed) when it has none."""
    try:
        return json.loads(content.decode())
    except UnicodeDecodeError as error:
        raise ColumnError("not_utf8", f"byte {error.start} of the line is 0x{content[error.start]:02x}") from error
    except json.JSONDecodeError as error:
        raise ColumnError("malformed", f"no JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise ColumnError("malformed", "nested too deeply to read") from error
    except ValueError as error:
        raise ColumnError("malformed", "a number with too many digits to read") from error


def _inside(row: Any, name: str) -> Any:
    """A value of an object, or by the parts of its name of one inside it; None where there is none."""
    if name in row:
        return row[name]
    for part in name.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def _check_surrogates(values: tuple[str | None, ...]) -> None:
    """Raise ColumnError for text with half of a character, which only an escape can bring in."""
    for value in values:
        try:
            (value or "").encode()
        except UnicodeEncodeError as error:
            raise ColumnError("not_utf8", f"half of a character at {error.start}") from error
