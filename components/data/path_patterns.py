"""Patterns as in .gitignore as one regular expression that the columns' own engine runs over every path at once."""

import re
from collections.abc import Sequence

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern


def as_regex(pattern: str) -> str:
    """The regular expression of one pattern, for paths relative to the top.

    Raises ValueError for an exception (`!...`), which means nothing by itself, and for a pattern that matches nothing.
    """
    if pattern.startswith("!"):
        raise ValueError(f"{pattern!r} makes an exception; list only what is meant")
    expression = GitIgnoreSpecPattern(pattern).regex
    if expression is None:
        raise ValueError(f"{pattern!r} matches nothing; give a pattern as in .gitignore")
    return re.sub(r"\(\?P<\w+>", "(?:", expression.pattern)  # names may not repeat in an alternation


def any_of(patterns: Sequence[str]) -> str | None:
    """One regular expression for paths that match at least one pattern; None for no patterns."""
    return "|".join(f"(?:{as_regex(each)})" for each in patterns) or None
