"""YAML that people and commits write, read as plain values: one parser with bounds. Any fault is a ConfigError.

Covers: text, whole and decimal numbers, true, false, null, lists and mappings, as YAML 1.2 reads them.
Refused: anchors, aliases, tags, merge keys, directives, several documents, keys that stand there twice or are no text,
numbers that are not finite or do not fit 64 bits, and what exceeds the bounds. Dates are text. A byte order mark is
passed over.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from components.core.addresses import masked
from components.core.errors import ConfigError, one_line
from components.core.text import text_of

MAX_BYTES = 4 * 2**20
MAX_VALUES = 200_000
MAX_DEPTH = 40
_MAX_INTEGER = 2**64
_MAX_DIGITS = 80
_SHOWN_CHARACTERS = 80
_ERROR_CHARACTERS = 200
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_BASES = {"0b": 2, "0o": 8, "0x": 16}
_INTEGER = re.compile(r"[-+]?(?:0b[01][01_]*|0o[0-7][0-7_]*|0x[0-9a-fA-F][0-9a-fA-F_]*|[0-9][0-9_]*)")
_DECIMAL = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+)"
)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class _Refusal(Exception):  # noqa: N818  becomes a ConfigError, which knows the file
    """What was found and what to do instead."""


def read(path: Path, missing: str) -> bytes:
    """The bytes of a file, as many as `parse` takes and one more, so that it sees what is too large.

    Raises ConfigError for a file that cannot be read; `missing` says what to do about an absent one.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: not found; {missing}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def parse(content: bytes | str, where: str, *, max_bytes: int = MAX_BYTES) -> Any:
    """The value of a YAML text; None for an empty one. Raises ConfigError with one line that begins with `where`."""
    text = decode(content, where, max_bytes=max_bytes)
    try:
        return _value(YAML(typ="safe", plug_ins=[]).parse(text))
    except _Refusal as error:
        raise ConfigError(f"{where}: {error}") from error
    except Exception as error:  # a parser's own faults are the text's fault here
        raise ConfigError(f"{where}: not valid YAML: {_reason(error)}") from error


def decode(content: bytes | str, where: str, *, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file without its byte order mark. Raises ConfigError when it is too large or not UTF-8."""
    try:
        data = content.encode() if isinstance(content, str) else content
        if len(data) > max_bytes:
            raise ConfigError(f"{where}: larger than {max_bytes:,} bytes; needed a shorter file")
        return text_of(data)
    except UnicodeError as error:
        raise ConfigError(f"{where}: cannot be read: {error}") from error


def parse_commented(content: bytes | str, where: str) -> Any:
    """The value of a YAML text with its comments, for a writer that keeps them. Raises ConfigError as `parse` does."""
    text = decode(content, where)
    parse(text, where)
    try:
        return YAML(plug_ins=[]).load(text)
    except Exception as error:
        raise ConfigError(f"{where}: not valid YAML: {_reason(error)}") from error


def _value(events: Iterator[Event]) -> Any:
    """The value of a stream of events. Without recursion: the depth of a text is not ours to trust."""
    outer: list[_Open] = [_Open(is_list=True)]
    documents = 0
    for count, event in enumerate(events):
        if count > MAX_VALUES:
            raise _Refusal(f"more than {MAX_VALUES:,} values; needed a shorter file")
        if isinstance(event, DocumentStartEvent):
            documents += 1
            _check_document(event, documents)
        elif isinstance(event, SequenceStartEvent | MappingStartEvent):
            _check_node(event)
            if len(outer) > MAX_DEPTH:
                raise _Refusal(f"line {_line(event)} is nested more than {MAX_DEPTH} deep; needed a flatter one")
            outer.append(_Open(is_list=isinstance(event, SequenceStartEvent)))
        elif isinstance(event, SequenceEndEvent | MappingEndEvent):
            done = outer.pop()
            outer[-1].add(done.value, event)
        elif isinstance(event, ScalarEvent):
            _check_node(event)
            outer[-1].add(_scalar(event), event)
        elif isinstance(event, AliasEvent):
            raise _Refusal(f"line {_line(event)} has the alias *{shown(event.anchor)}; write the value out")
    return outer[0].value[0] if outer[0].value else None


class _Open:
    """A list or a mapping whose end is still to come."""

    def __init__(self, *, is_list: bool) -> None:
        self.value: Any = [] if is_list else {}
        self._key: str | None = None

    def add(self, value: Any, event: Event) -> None:
        """Take the next item, key or value. Raises _Refusal for a key that is no text or stands there twice."""
        if isinstance(self.value, list):
            self.value.append(value)
        elif self._key is not None:
            self.value[self._key] = value
            self._key = None
        elif not isinstance(value, str):
            raise _Refusal(f"line {_line(event)} has the key {shown(value)}, which is no text; quote it")
        elif value in self.value:
            raise _Refusal(f"line {_line(event)} has a duplicate key, {shown(value)}; keep one of them")
        elif value == "<<":
            raise _Refusal(f"line {_line(event)} has a merge key (<<); write the values out")
        else:
            self._key = value


def _check_document(event: DocumentStartEvent, number: int) -> None:
    if event.version or event.tags:
        raise _Refusal("has a %YAML or %TAG directive; leave it out")
    if number > 1:
        raise _Refusal(f"line {_line(event)} starts a second document; needed one")


def _check_node(event: ScalarEvent | SequenceStartEvent | MappingStartEvent) -> None:
    if event.anchor is not None:
        raise _Refusal(f"line {_line(event)} has the anchor &{shown(event.anchor)}; write the value out where needed")
    if event.tag is not None:
        raise _Refusal(f"line {_line(event)} has the tag {shown(event.tag)}; leave it out, plain values have none")


def _scalar(event: ScalarEvent) -> Any:
    """What a scalar is in YAML 1.2; in quotes or as a block it is text."""
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return _integer(text, event)
    if _NOT_FINITE.fullmatch(text):
        raise _Refusal(f"line {_line(event)} has {text}; needed a finite number")
    if _DECIMAL.fullmatch(text):
        return _decimal(text, event)
    return text


def _integer(text: str, event: Event) -> int:
    digits = text.replace("_", "").lstrip("-+")
    if len(digits) <= _MAX_DIGITS:
        number = int(digits[2:], _BASES[digits[:2]]) if digits[:2] in _BASES else int(digits)
        if number < _MAX_INTEGER:
            return -number if text.startswith("-") else number
    raise _Refusal(f"line {_line(event)} has {shown(text)}; needed a whole number of at most 64 bits")


def _decimal(text: str, event: Event) -> float:
    number = float(text.replace("_", ""))
    if math.isfinite(number):
        return number
    raise _Refusal(f"line {_line(event)} has {shown(text)}; needed a number that a 64-bit float holds")


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


def shown(value: Any, characters: int = _SHOWN_CHARACTERS) -> str:
    """A value that others wrote, in a message: one line, not too long, nothing that a terminal obeys."""
    text = str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= characters else text[: characters - 3] + "..."


def _reason(error: Exception) -> str:
    text = masked(one_line(error, 2 * _ERROR_CHARACTERS))
    return shown(text.replace(' in "<unicode string>",', ""), _ERROR_CHARACTERS)
