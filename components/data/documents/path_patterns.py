"""Patterns as in .gitignore: what they mean to Git, in time that grows with a path and not with its powers.

One reading of a pattern gives two regular expressions. The columns' own engine runs over every path at once and never
goes back. Python's does, so every wildcard but the last takes the first place that fits and keeps it: what follows can
always begin there, since the next wildcard takes in whatever lies between.
Covers: all of gitignore(5) as Git's wildmatch has it: `*`, `?`, `**`, classes with ranges, negation, escapes and
[:names:], exceptions, folders, anchors, trailing spaces, CRLF, a byte order mark; a test compares with Git itself.
Not covered: case folding; `?` and classes in columns stand for a character, which Git reads byte by byte.
"""

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import polars as pl

# Wildcards among the parts of a pattern: within a name, over whole folders, and over anything.
_STAR, _FOLDERS, _ANYTHING = "*", "**/", "**"
_PLAIN = {_STAR: "[^/]*", _FOLDERS: "(?s:.*/)?", _ANYTHING: "(?s:.*)"}
_FIRST = {_FOLDERS: "(?s:.*?/)??", _ANYTHING: "(?s:.*?)"}
_SPECIAL = re.compile(r"[*?\[\\]")
_NAMED = {
    "alnum": ("09", "AZ", "az"),
    "alpha": ("AZ", "az"),
    "blank": ("\t\t", "  "),
    "cntrl": ("\x00\x1f", "\x7f\x7f"),
    "digit": ("09",),
    "graph": ("!~",),
    "lower": ("az",),
    "print": (" ~",),
    "punct": ("!/", ":@", "[`", "{~"),
    "space": ("\t\r", "  "),
    "upper": ("AZ",),
    "xdigit": ("09", "AF", "af"),
}


class _NothingError(Exception):
    """A pattern that no path can match."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One line: its parts (expressions of one character each, and wildcards), and what they are compared with."""

    exception: bool
    only_folders: bool
    only_name: bool
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Patterns:
    """The lines of one .gitignore, or of one list of a config; the last that speaks of a path decides.

    Paths are relative to the file, with `/`, read byte by byte as Git does.
    """

    _lines: tuple[tuple[_Pattern, "re.Pattern[str]"], ...]

    @classmethod
    def of_file(cls, content: bytes) -> Self:
        """The patterns of a .gitignore."""
        lines = (line.removesuffix(b"\r") for line in content.removeprefix(codecs.BOM_UTF8).split(b"\n"))
        return cls.of_lines(line.partition(b"\0")[0].decode("latin-1") for line in lines)

    @classmethod
    def of_config(cls, lines: Iterable[str]) -> Self:
        """The patterns of a config, which are text."""
        return cls.of_lines(map(_bytewise, lines))

    @classmethod
    def of_lines(cls, lines: Iterable[str]) -> Self:
        """The patterns of lines of one character a byte; lines that are no pattern match nothing."""
        patterns = (pattern for line in lines if (pattern := _parsed(line)) is not None)
        return cls(tuple((each, re.compile(_linear(each.parts))) for each in patterns))

    def verdict(self, path: str, *, is_folder: bool) -> bool | None:
        """True where the patterns speak of this very path, False where they make an exception, None for neither."""
        whole = _bytewise(path)
        name = whole.rpartition("/")[2]
        for pattern, expression in reversed(self._lines):
            if pattern.only_folders and not is_folder:
                continue
            if expression.fullmatch(name if pattern.only_name else whole):
                return not pattern.exception
        return None

    def cover(self, path: str) -> bool:
        """Whether a file is meant, by itself or by a folder above it, from which there is no exception."""
        return any(self.verdict(above, is_folder=True) for above in _above(path)) or bool(
            self.verdict(path, is_folder=False)
        )


def as_regex(pattern: str) -> str:
    """The regular expression of one pattern, for paths relative to the top, in the columns' engine.

    Raises ValueError for an exception (`!...`), which means nothing by itself, and for a pattern that matches nothing.
    """
    if pattern.startswith("!"):
        raise ValueError(f"{pattern!r} makes an exception; list only what is meant")
    parts = checked(pattern)
    body = "".join(_PLAIN.get(part, part) for part in parts.parts)
    return f"^{'(?s:.*?/)??' * parts.only_name}{body}{'/' if parts.only_folders else '(?:/|$)'}"


def any_of(patterns: Sequence[str]) -> str | None:
    """One regular expression for paths that match at least one pattern; None for no patterns."""
    return "|".join(f"(?:{as_regex(each)})" for each in patterns) or None


def checked(pattern: str) -> _Pattern:
    """The pattern of a line. Raises ValueError for one that matches nothing."""
    rule = _parsed(pattern)
    if rule is None or "\n" in pattern:
        raise ValueError(f"{pattern!r} matches nothing; write it as in .gitignore")
    return rule


def slashed(path: str) -> str:
    """A path with `/` between its parts, also one that was written on Windows."""
    return path.replace("\\", "/")


def slashed_column(path: pl.Expr) -> pl.Expr:
    """`slashed` of a column."""
    return path.str.replace_all("\\", "/", literal=True)


def _bytewise(text: str) -> str:
    """A text of one character a byte."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def _above(path: str) -> Iterator[str]:
    """The folders above a path, the top one first."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


def _parsed(line: str) -> _Pattern | None:
    """The pattern of a line; None for a blank line, a comment, and what matches nothing."""
    text = _without_spaces(line)
    exception = text.startswith("!")
    text = text.removeprefix("!")
    only_folders = text.endswith("/")
    text = text.removesuffix("/")
    if line.startswith("#") or not text:
        return None
    only_name = "/" not in text
    text = text if only_name else text.removeprefix("/")
    special = _SPECIAL.search(text)
    # Git compares what comes before the first wildcard by itself, so a `**` right behind it begins a pattern.
    start = 0 if only_name else special.start() if special else len(text)
    try:
        return _Pattern(exception, only_folders, only_name, (*map(_escaped, text[:start]), *_parts(text[start:])))
    except _NothingError:
        return None


def _without_spaces(line: str) -> str:
    """A line without spaces at its end, but for one behind a backslash."""
    kept = at = 0
    while at < len(line):
        if line[at] == "\\":
            at += 1
            if at == len(line):
                return line
            kept = at + 1
        elif line[at] != " ":
            kept = at + 1
        at += 1
    return line[:kept]


def _parts(text: str) -> Iterator[str]:
    """The parts of a pattern. Raises _NothingError for a class or an escape without its end."""
    at = 0
    while at < len(text):
        if text[at] == "*":
            stop = at + len(text[at:]) - len(text[at:].lstrip("*"))
            rest = text[stop:]
            whole = stop - at > 1 and (at == 0 or text[at - 1] == "/")
            if whole and rest.startswith("/"):
                yield _FOLDERS
                at = stop + 1
            else:
                yield _ANYTHING if whole and (not rest or rest.startswith("\\/")) else _STAR
                at = stop
        elif text[at] == "[":
            part, at = _class(text, at + 1)
            yield part
        elif text[at] == "\\":
            if at + 1 == len(text):
                raise _NothingError
            yield _escaped(text[at + 1])
            at += 2
        else:
            yield "[^/]" if text[at] == "?" else _escaped(text[at])
            at += 1


def _class(text: str, at: int) -> tuple[str, int]:
    """The expression of a class whose bracket stands before `at`, and where it ends."""
    negated = text[at : at + 1] in ("!", "^")
    at += negated
    start, previous = at, ""
    ranges: list[str] = []
    while (character := text[at : at + 1]) != "]" or at == start:
        if character == "[" and text[at + 1 : at + 2] == ":" and (named := _named(text, at + 2)) is not None:
            ranges += _NAMED[named]
            at, previous = at + len(named) + 3, ""
        elif character == "-" and previous and text[at + 1 : at + 2] not in ("", "]"):
            at += 2 if text[at + 1] == "\\" else 1
            ranges.append(previous + text[at : at + 1])
            previous = ""
        else:
            at += character == "\\"
            previous = text[at : at + 1]
            ranges.append(previous * 2)
        if at >= len(text):
            raise _NothingError
        at += 1
    return _expression(ranges, negated), at + 1


def _named(text: str, at: int) -> str | None:
    """The name of a class of characters that begins at `at`; None where it is none after all."""
    end = text.find("]", at)
    if end < 0:
        raise _NothingError
    if end == at or text[end - 1] != ":":
        return None
    if text[at : end - 1] not in _NAMED:
        raise _NothingError
    return text[at : end - 1]


def _expression(ranges: Sequence[str], negated: bool) -> str:
    """A class of characters, none of which is a slash."""
    inside = []
    for first, last in ((each[0], each[1]) for each in ranges):
        for low, high in ((first, min(last, ".")), (max(first, "0"), last)):
            if low <= high:
                inside.append(f"{_escaped(low)}-{_escaped(high)}")
    if negated:
        return f"[^/{''.join(inside)}]"
    if not inside:
        raise _NothingError
    return f"[{''.join(inside)}]"


def _escaped(character: str) -> str:
    return character if character.isalnum() or not character.isascii() else f"\\x{ord(character):02x}"


def _linear(parts: Sequence[str]) -> str:
    """Parts as an expression for Python's engine, which goes back over one wildcard of each kind at most."""
    units: list[list[str]] = [[]]
    joints: list[str] = []
    for part in parts:
        if part in _FIRST:
            joints.append(part)
            units.append([])
        else:
            units[-1].append(part)
    text = _unit(units[0])
    for joint, unit in zip(joints[:-1], units[1:], strict=False):
        text += f"(?>{_FIRST[joint]}{_unit(unit)})"
    return text + (_PLAIN[joints[-1]] + _unit(units[-1]) if joints else "")


def _unit(parts: Sequence[str]) -> str:
    """Parts with wildcards within names alone."""
    pieces = [""]
    for part in parts:
        if part == _STAR:
            pieces.append("")
        else:
            pieces[-1] += part
    first, *rest = pieces
    if not rest:
        return first
    return first + "".join(f"(?>[^/]*?{piece})" for piece in rest[:-1]) + f"[^/]*{rest[-1]}"
