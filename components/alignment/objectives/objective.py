"""What a way to align is: something that a model can learn from, and how far that took it."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel

from components.core.events import Events
from components.deadline.budget import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where a model learns: its directory before, its artifact's digest, the tokens of pretraining, the clock, where
    checkpoints are kept, and the artifact that is written, for what else is to be kept."""

    sft: Path
    tokens: Path
    digest: str
    budget: Budget
    checkpoints: Path
    out: Path
    events: Events


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """How far a model came. `history`: rows by step; `figures` for the statistics, `run` for what times and hosts are
    in; `reason` why no step was taken, where none was."""

    steps: int
    seconds: float
    history: Sequence[dict[str, Any]]
    figures: dict[str, Any]
    run: dict[str, Any] = field(default_factory=dict)
    reason: str = "no time was left to train"


class Objective(Protocol):
    """A way to align. `columns` are those of history.csv behind `step`; `statistics` say what it learns from."""

    columns: Sequence[str]
    statistics: dict[str, Any]

    @property
    def reason(self) -> str | None:
        """Why there is too little to learn from; None where there is enough."""
        ...

    def learn(self, model: PreTrainedModel, setting: Setting) -> Learned:
        """Change the model in place, measured before and after where something is held out."""
        ...


def write_history(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> int:
    """The rows as CSV; returns their number."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", *columns], restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)
