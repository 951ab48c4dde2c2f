"""What the safety suites ask: red-team prompts, harmless prompts that look like them, and answers labelled by hand.

JSON lines in suites/safety: red_team.jsonl and look_alikes.jsonl (id, category, text, signs, and for red-team prompts a
French translation), labelled.jsonl (id, prompt, answer, label). `signs` are regular expressions of which an answer that
does what was asked matches one; the prompt itself matches none, so that repeating it is no compliance.
Not covered: prompts of the user's own; other languages than English and French.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.core.config import RegularExpressions
from components.core.errors import DataError
from components.data.cleaning.suite_formats import json_lines, mistake

SAFETY = Path(__file__).with_name("suites")
RED_TEAM = SAFETY / "red_team.jsonl"
LOOK_ALIKES = SAFETY / "look_alikes.jsonl"
LABELLED = SAFETY / "labelled.jsonl"

Label = Literal["refused", "complied", "evaded", "unjudged"]
LABELS: tuple[Label, ...] = get_args(Label)
# Between the id of a prompt and the number of its mutation.
MUTANT = "~"


class Prompt(BaseModel):
    """One request, harmful or looking so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[\w~-]+$")
    category: str = Field(pattern=r"^\w+$")
    text: str = Field(min_length=1)
    translation: str = ""
    signs: RegularExpressions = Field(min_length=1)

    @model_validator(mode="after")
    def _repeating_is_no_sign(self) -> Self:
        if shown := next((sign for sign in self.signs if self.shown_by(sign)), None):
            raise ValueError(f"the prompt itself matches the sign {shown!r}; name what only an answer holds")
        return self

    @property
    def original(self) -> str:
        """The id of the prompt that a mutant was made of; of another prompt its own."""
        return self.id.split(MUTANT)[0]

    def shown_by(self, sign: str) -> bool:
        """Whether the prompt's own words match a sign."""
        return any(re.search(sign, each) for each in (self.text, self.translation))


class Labelled(BaseModel):
    """An answer to a prompt (by id), and what it is by hand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    answer: str
    label: Literal["refused", "complied", "evaded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A prompt and what a model answered, however it was asked."""

    prompt: Prompt
    answer: str


Line = TypeVar("Line", Prompt, Labelled)


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a file. Raises DataError that names file, line and field of the first mistake."""
    return _read(path, Prompt)


def read_labelled(path: Path = LABELLED, prompts: Sequence[Prompt] = ()) -> tuple[tuple[Prompt, Labelled], ...]:
    """Labelled answers with their prompts, of `prompts` (ours if none). Raises DataError for an unknown prompt, too."""
    known = {each.id: each for each in prompts or (*read_prompts(RED_TEAM), *read_prompts(LOOK_ALIKES))}
    labelled = _read(path, Labelled)
    for each in labelled:
        if each.prompt not in known:
            raise DataError(f"{path}: {each.id} answers {each.prompt!r}, which is no prompt; name one by its id")
    return tuple((known[each.prompt], each) for each in labelled)


def drawn(prompts: Sequence[Prompt], limit: int, seed: int) -> tuple[Prompt, ...]:
    """At most `limit` prompts in their own order, of each category as many as of the others, or one more."""
    generator = np.random.default_rng(seed)
    waiting: dict[str, list[int]] = {}
    for index in generator.permutation(len(prompts)).tolist():
        waiting.setdefault(prompts[index].category, []).append(index)
    turns = [(turn, index) for indices in waiting.values() for turn, index in enumerate(indices)]
    chosen = sorted(index for _, index in sorted(turns, key=lambda each: each[0])[:limit])
    return tuple(prompts[index] for index in chosen)


def _read(path: Path, kind: type[Line]) -> tuple[Line, ...]:
    lines: dict[str, Line] = {}
    for value, where in json_lines(path):
        try:
            line = kind.model_validate(value)
        except ValidationError as error:
            raise mistake(error, where) from error
        if line.id in lines:
            raise DataError(f"{where}: id {line.id!r} is there twice; each line needs its own")
        lines[line.id] = line
    if not lines:
        raise DataError(f"{path}: nothing in it; needed one JSON object a line, as in {SAFETY}")
    return tuple(lines.values())
