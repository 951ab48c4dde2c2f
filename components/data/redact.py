"""Put typed placeholders in the place of private data.

What is private is said in private_data. A placeholder names its kind and a number that is stable within a document:
one value, one placeholder.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import polars as pl

from components.data.private_data import RULES, Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """One span of private data: `start` and `end` in characters of the original text."""

    kind: str
    start: int
    end: int
    placeholder: str


def find(text: str, rules: Collection[Rule]) -> list[Redaction]:
    """The private data of one text by these rules, in its order, without overlaps."""
    taken: list[tuple[int, int, str]] = []
    for rule in rules:
        for match in rule.pattern.finditer(text):
            start, end = match.span(rule.group)
            overlaps = any(start < other_end and other_start < end for other_start, other_end, _ in taken)
            if end > start and not overlaps and rule.accept(text, start, end):
                taken.append((start, end, rule.kind))
    numbers: dict[tuple[str, str], int] = {}
    counts: dict[str, int] = {}
    found = []
    for start, end, kind in sorted(taken):
        value = (kind, text[start:end])
        if value not in numbers:
            counts[kind] = numbers[value] = counts.get(kind, 0) + 1
        found.append(Redaction(kind=kind, start=start, end=end, placeholder=f"<{kind.upper()}_{numbers[value]}>"))
    return found


def replace(text: str, redactions: list[Redaction]) -> str:
    """The text with each span replaced by its placeholder; the spans are in order and do not overlap."""
    pieces, position = [], 0
    for each in redactions:
        pieces += [text[position : each.start], each.placeholder]
        position = each.end
    return "".join([*pieces, text[position:]])


def redact_text(text: str, kinds: Collection[str]) -> tuple[str, list[Redaction]]:
    """One text redacted, and what was found in it."""
    found = find(text, [rule for rule in RULES if rule.kind in kinds])
    return replace(text, found), found


def find_all(texts: pl.Series, kinds: Collection[str]) -> Iterator[tuple[int, list[Redaction]]]:
    """(row, redactions) for every text with private data, by row.

    The hints run over the whole column in the columns' own regex engine, so that Python sees only the few texts, and
    for each only the rules, that may have something.
    """
    rules = [rule for rule in RULES if rule.kind in kinds]
    if not rules:
        return
    frame = texts.alias("text").to_frame()
    hints = frame.select(pl.col("text").str.contains(rule.hint).alias(str(i)) for i, rule in enumerate(rules))
    rows = hints.with_row_index("row").filter(pl.any_horizontal(pl.exclude("row")))
    for row, *flags in rows.iter_rows():
        found = find(texts[row], [rule for rule, flag in zip(rules, flags, strict=True) if flag])
        if found:
            yield row, found
