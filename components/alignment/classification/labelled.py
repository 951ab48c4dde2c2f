"""Labelled texts: JSON lines {"text": ..., "answer": ... (may be absent), "label": one or a list}.

An answer makes a pair, as a judge of answers reads it. Where one line has a list, each label may hold or not, by
itself. Texts that the safety suites ask, and answers that they have labelled, are left out: they measure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.core.artifact import sha256_of
from components.core.errors import DataError
from components.data.cleaning.suite_formats import json_lines

FIELDS = ("text", "translation", "prompt", "answer")  # of a suite's line


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A text, what was answered to it (None: nothing is judged but the text), and its labels."""

    text: str
    answer: str | None
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledTexts:
    """What was read.

    several    whether a text may have several labels, or none
    names      of the labels, sorted
    measured   how many were left out because suites ask them
    digests    sha256 of each file, by its path
    """

    texts: tuple[Labelled, ...]
    several: bool
    names: tuple[str, ...]
    measured: int
    digests: dict[str, str]

    def targets(self, texts: Sequence[Labelled]) -> NDArray[np.int64]:
        """What the engine learns: (texts, 1) the number of the label, or (texts, labels) whether each holds."""
        if self.several:
            return np.array([[int(name in each.labels) for name in self.names] for each in texts], np.int64)
        return np.array([[self.names.index(each.labels[0])] for each in texts], np.int64)


def read_texts(paths: Sequence[str], suites: Sequence[str]) -> LabelledTexts:
    """Every text once, in the order of the files. Raises DataError with file, line and field of the first mistake, and
    where fewer than two labels are left to tell apart."""
    asked = {part for path in suites for value, _ in json_lines(Path(path)) for part in _parts(value)}
    every: dict[tuple[str, str | None], Labelled] = {}
    measured, several = 0, False
    for path in paths:
        for value, where in json_lines(Path(path)):
            each, listed = _labelled(value, where)
            several |= listed
            known = every.setdefault((each.text, each.answer), each)
            if known.labels != each.labels:
                raise DataError(
                    f"{where}: label: found {_said(each)}, an earlier line has {_said(known)} for this text"
                )
    kept = [each for each in every.values() if not {_folded(part) for part in (each.text, each.answer) if part} & asked]
    measured = len(every) - len(kept)
    names = sorted({label for each in kept for label in each.labels})
    if len(names) < 2:
        raise DataError(
            f"{', '.join(paths)}: found {len(kept)} texts with the labels {', '.join(names) or 'none'}, needed two "
            f"labels at least ({measured} texts were left out because the safety suites ask them)"
        )
    return LabelledTexts(
        texts=tuple(kept),
        several=several,
        names=tuple(names),
        measured=measured,
        digests={path: sha256_of(Path(path)) for path in paths},
    )


def _labelled(value: Any, where: str) -> tuple[Labelled, bool]:
    """A line, and whether its labels are a list."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: found {type(value).__name__}, needed an object with text and label")
    for field in ("text", "answer"):
        text = value.get(field)
        if not (isinstance(text, str) and text.strip()) and not (field == "answer" and text is None):
            found = "nothing" if text is None else "an empty text" if isinstance(text, str) else type(text).__name__
            raise DataError(f"{where}: {field}: found {found}, needed a text")
    label = value.get("label")
    labels: list[Any] = label if isinstance(label, list) else [label]
    if wrong := [each for each in labels if not (isinstance(each, str) and each.strip())]:
        raise DataError(f"{where}: label: found {wrong[0]!r}, needed a text, or a list of them")
    one = Labelled(text=value["text"], answer=value.get("answer"), labels=tuple(sorted(set(labels))))
    return one, isinstance(label, list)


def _parts(value: Any) -> Iterator[str]:
    """What a suite's line shows to a judge."""
    for field in FIELDS:
        if isinstance(value, dict) and isinstance(value.get(field), str) and value[field].strip():
            yield _folded(value[field])


def _folded(text: str) -> str:
    """Without case, and with runs of white space as one space."""
    return " ".join(text.lower().split())


def _said(labelled: Labelled) -> str:
    return ", ".join(labelled.labels) or "none"
