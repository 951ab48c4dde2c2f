"""Put typed placeholders in the place of private data.

What is private is said in private_data. A placeholder names its kind and a number that is stable within a document:
one value, one placeholder.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import polars as pl

from components.data.cleaning.private.rule import Rule
from components.data.cleaning.private_data import rules
from components.data.config import RedactConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """One span of private data: `start` and `end` in characters of the original text."""

    kind: str
    start: int
    end: int
    placeholder: str


def find(text: str, places: Iterable[tuple[Rule, Iterable[tuple[int, int]]]]) -> list[Redaction]:
    """The private data of one text, in its order, without overlaps: each rule within its places (start, end)."""
    starts: list[int] = []
    matches: list[tuple[int, int, str]] = []
    for rule, spans in places:
        for start, end in spans:
            for first, last in _matches(text, rule, start, end):
                at = bisect_right(starts, first)
                free = (at == 0 or matches[at - 1][1] <= first) and (at == len(starts) or last <= starts[at])
                if free and first < last:
                    starts.insert(at, first)
                    matches.insert(at, (first, last, rule.kind))
    numbers: dict[tuple[str, str], int] = {}
    counts: dict[str, int] = {}
    redactions = []
    for start, end, kind in matches:
        value = (kind, text[start:end])
        if value not in numbers:
            counts[kind] = numbers[value] = counts.get(kind, 0) + 1
        redactions.append(Redaction(kind=kind, start=start, end=end, placeholder=f"<{kind.upper()}_{numbers[value]}>"))
    return redactions


def _matches(text: str, rule: Rule, position: int, end: int) -> Iterator[tuple[int, int]]:
    """The private parts of the matches that the rule accepts; one that it does not may hide another that begins later
    within it, as in `<add key="ApiSecret" value="...">`."""
    while match := rule.pattern.search(text, position, end):
        accepted = rule.accept(match)
        position = match.end() if accepted else match.start() + 1
        if accepted:
            yield match.span(rule.group)


def replace(text: str, redactions: list[Redaction]) -> str:
    """The text with each span replaced by its placeholder; the spans are in order and do not overlap."""
    pieces, position = [], 0
    for each in redactions:
        pieces += [text[position : each.start], each.placeholder]
        position = each.end
    return "".join([*pieces, text[position:]])


def redact_text(text: str, config: RedactConfig) -> tuple[str, list[Redaction]]:
    """One text redacted, and what was found in it: what find_all finds, sooner for one text and later for many."""
    redactions = find(text, ((rule, [(0, len(text))]) for rule in rules(config)))
    return replace(text, redactions), redactions


def find_all(texts: pl.Series, config: RedactConfig) -> Iterator[tuple[int, list[Redaction]]]:
    """(row, redactions) for every text with private data, by row.

    The hints run over the whole column in the columns' own regex engine, which hands over the few lines that may have
    something; Python sees those alone, and for each only the rules whose hint it holds.
    """
    every = rules(config)
    lines = {hint: _lines(texts, hint) for hint in sorted({rule.hint for rule in every})}
    for row in sorted(set().union(*lines.values())):
        text = texts[row]
        redactions = find(text, ((rule, _places(text, rule, lines[rule.hint].get(row, ()))) for rule in every))
        if redactions:
            yield row, redactions


def _lines(texts: pl.Series, hint: str) -> dict[int, list[str]]:
    """Of every row with the hint, the lines that hold it."""
    frame = texts.alias("text").to_frame().with_row_index("row").filter(pl.col("text").str.contains(hint))
    lines = frame.select("row", pl.col("text").str.extract_all(rf"(?m)^.*(?:{hint}).*$"))
    return dict(lines.iter_rows())


def _places(text: str, rule: Rule, lines: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Where the lines stand, which come in the order of the text; all of the text for a rule that spans lines.

    A line that holds the hint is found at its first occurrence from the last one's end: were that within another
    line, this one would hold the hint too and come before.
    """
    if rule.spans_lines:
        yield from [(0, len(text))] if lines else []
        return
    position = 0
    for line in lines:
        start = text.index(line, position)
        position = start + len(line)
        yield start, position
