"""Texts with their private data marked: `«kind:private part»`, one JSON object a line {format, why, text}.

`¦` stands inside what would otherwise read as a live key to those who scan repositories for them; it is no part of the
text.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CASES = Path(__file__).parent / "redaction"
_MARK = re.compile(r"«(email|ip|key|name):|»")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A text, its private spans (kind, start, end), and what it is a case of."""

    text: str
    spans: frozenset[tuple[str, int, int]]
    why: str


@dataclass(slots=True)
class Score:
    """Spans found right, found wrongly, and missed; a span is right when kind, start and end are."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.wrong)

    @property
    def recall(self) -> float:
        return self.right / (self.right + self.missed)

    @property
    def f1(self) -> float:
        return 2 * self.right / (2 * self.right + self.wrong + self.missed)


def parse(marked: str) -> tuple[str, frozenset[tuple[str, int, int]]]:
    """The text without marks, and the spans that they mark."""
    text, spans, position = "", set(), 0
    opened: tuple[str, int] | None = None
    marked = marked.replace("¦", "")
    for mark in _MARK.finditer(marked):
        text += marked[position : mark.start()]
        position = mark.end()
        if mark[1]:
            assert opened is None, marked
            opened = (mark[1], len(text))
        else:
            assert opened is not None, marked
            spans.add((*opened, len(text)))
            opened = None
    assert opened is None, marked
    return text + marked[position:], frozenset(spans)


def cases(*names: str) -> list[Case]:
    """The cases of these files of `redaction/`."""
    rows = [json.loads(line) for name in names for line in (CASES / f"{name}.jsonl").read_text("utf-8").splitlines()]
    return [Case(text=text, spans=spans, why=row["why"]) for row in rows for text, spans in [parse(row["text"])]]


def scores(pairs: Iterable[tuple[Case, frozenset[tuple[str, int, int]]]]) -> dict[str, Score]:
    """The score of each kind over cases and what was found in them."""
    by_kind: dict[str, Score] = {}
    for case, found in pairs:
        for kind in {each[0] for each in case.spans | found}:
            score = by_kind.setdefault(kind, Score())
            wanted, got = ({each for each in spans if each[0] == kind} for spans in (case.spans, found))
            score.right += len(wanted & got)
            score.wrong += len(got - wanted)
            score.missed += len(wanted - got)
    return by_kind
