"""What a rule for private data is."""

import re
from collections.abc import Callable
from dataclasses import dataclass

Accept = Callable[[re.Match[str]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A pattern of one kind (email, ip, key, name); `group` is the private part of a match, if `accept(match)`.

    A match lies within a line, unless `spans_lines`. `hint` runs over a whole column in the regex engine of the
    columns, and is in every line with a match that `accept` takes (in every text with one, for what spans lines).
    """

    name: str
    kind: str
    hint: str
    pattern: re.Pattern[str]
    accept: Accept
    group: int = 0
    spans_lines: bool = False


def always(match: re.Match[str]) -> bool:
    """The pattern says it all."""
    return True


def stands_alone(match: re.Match[str]) -> bool:
    """Not a piece of a longer word: tokens are cut out of base64 blobs otherwise."""
    start, end = match.span()
    return not (match.string[max(0, start - 1) : start].isalnum() or match.string[end : end + 1].isalnum())


def line_before(text: str, start: int, characters: int) -> str:
    """What stands before `start` on its line, at most so many characters."""
    return text[max(0, start - characters, text.rfind("\n", 0, start) + 1) : start]


def line_after(text: str, end: int, characters: int) -> str:
    """What stands after `end` on its line, at most so many characters."""
    return text[end : end + characters].partition("\n")[0]


def words(listed: str) -> frozenset[str]:
    """A set of words from a text of them."""
    return frozenset(listed.split())
