"""One value of a row as the text of a field of a document, whatever type a table gave it.

Covers: what JSON, Parquet and CSV hold: null and NaN (nothing is said), text, bytes, numbers of any size, dates, lists,
objects. The rows of every source of tables go through here, so that a value means the same in all of them.
Not covered: what the text says, which admission and clean judge.
"""

import datetime
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

# What stands between several names: all licences hold, and every author of a list may opt out.
_BETWEEN = {"licence": " AND "}
# Fields that a model reads: nothing but text will do.
CONTENT = frozenset({"text", "prompt", "completion"})
_NUMBERS = (int, float, Decimal)
_DATES = (datetime.date, datetime.time, datetime.timedelta)
_KINDS = (
    (bool, "true or false"),
    (_NUMBERS, "a number"),
    ((str, bytes), "text"),
    (Mapping, "an object"),
    (list, "a list"),
)


class ColumnError(Exception):
    """Why a row, or a whole table, gives no document: (reason, detail)."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def content_of(value: Any, field: str = "text") -> str | None:
    """A value that a model is to read: text, or its bytes. Raises ColumnError (wrong_type, not_utf8) for others."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return _decoded(value, field)
    if _is_nothing(value):
        return None
    raise ColumnError("wrong_type", f"the {field} is {_kind(value)}, needed text")


def label_of(value: Any, field: str) -> str | None:
    """A value that says something of a text: a name, a number or a date, or a list of these, which is sorted.

    Empty text says nothing. Raises ColumnError (wrong_type, not_utf8) for anything else.
    """
    if isinstance(value, list):
        names = {name for each in value if (name := _name(each, field))}
        return _BETWEEN.get(field, ", ").join(sorted(names)) or None
    return _name(value, field)


def seconds_of(value: Any) -> float | None:
    """A time in seconds. Raises ColumnError (wrong_type) for what is no number."""
    if _is_nothing(value):
        return None
    if not isinstance(value, _NUMBERS) or isinstance(value, bool):
        raise ColumnError("wrong_type", f"the time is {_kind(value)}, needed a number of seconds")
    try:
        return float(value)
    except OverflowError as error:
        raise ColumnError("wrong_type", "the time is beyond every number of seconds") from error


def question_and_answers(question: Any, answers: Any) -> str | None:
    """The question, then its answers: the accepted one first, then by score, then by number. None without any text.

    Raises ColumnError (wrong_type, not_utf8) when a part of it is not what the shape says.
    """
    parts = [content_of(question, "question")]
    if not _is_nothing(answers):
        if not isinstance(answers, list):
            raise ColumnError("wrong_type", f"the field answers is {_kind(answers)}, needed a list of objects")
        parts += [text for _, text in sorted((_answer(each) for each in answers if each is not None), key=_rank)]
    stated = [part for part in parts if part is not None]
    return "\n\n".join(stated) if stated else None


def _answer(answer: Any) -> tuple[tuple[Any, ...], str | None]:
    """(what it is sorted by, text) of an answer; what is not stated comes last."""
    if not isinstance(answer, Mapping):
        raise ColumnError("wrong_type", f"an answer is {_kind(answer)}, needed an object")
    selected = _number(answer.get("selected"), "selected")
    score = _number(answer.get("pm_score"), "pm_score")
    identity = answer.get("answer_id")
    named = isinstance(identity, str)
    number = None if named else _number(identity, "answer_id")
    return (
        (
            (2 if selected is None else 0 if selected else 1),
            (score is None, 0 if score is None else -score),
            (number is None, 0 if number is None else number),
            (not named, identity if named else ""),
        ),
        content_of(answer.get("text"), "text of an answer"),
    )


def _rank(answer: tuple[tuple[Any, ...], str | None]) -> tuple[Any, ...]:
    return answer[0]


def _number(value: Any, field: str) -> Any:
    """A number or a truth value to sort by, None for null and NaN."""
    if _is_nothing(value):
        return None
    if not isinstance(value, _NUMBERS):
        raise ColumnError("wrong_type", f"{field} of an answer is {_kind(value)}, needed a number")
    return value


def _name(value: Any, field: str) -> str | None:
    if isinstance(value, str):
        return value or None
    if _is_nothing(value):
        return None
    if isinstance(value, bytes):
        return _decoded(value, field) or None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, _NUMBERS + _DATES):
        return str(value)
    raise ColumnError("wrong_type", f"the {field} is {_kind(value)}, needed a name or a list of names")


def _is_nothing(value: Any) -> bool:
    """Null, and what tables write for it where a column is of numbers."""
    return value is None or (isinstance(value, float | Decimal) and value != value)


def _decoded(value: bytes, field: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ColumnError("not_utf8", "" if field == "text" else f"in the {field}") from error


def _kind(value: Any) -> str:
    """What a value is in the words of JSON."""
    return next((name for kind, name in _KINDS if isinstance(value, kind)), f"a {type(value).__name__}")
