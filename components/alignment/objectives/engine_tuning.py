"""Fine-tune a decoder with our own training engine: rows of conversations beside pretraining windows.

Covers: all weights or some of them; the steps of fixed mode or the clock; checkpoints, and going on after a kill.
Not covered: several workers.
"""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from components.alignment.config import SftConfig
from components.alignment.examples.packing import PackedRows
from components.alignment.objectives.replay import Windows
from components.alignment.objectives.tuning import Steps
from components.core.events import Events
from components.training.engine import checkpoint
from components.training.engine.batches.batch import Batch
from components.training.engine.figures import Report
from components.training.engine.loop import train
from components.training.engine.optimizer import Rates
from components.training.engine.trainer import Recipe, Trainer, World

COLUMNS = ("tokens", "loss", "learning_rate", "gradient_norm", "tokens_per_second")
KEPT_SECONDS = 30.0  # between checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """What each step reads: a pure function of the step.

    replayed   rows of each batch that are pretraining windows
    """

    conversations: PackedRows
    windows: Windows | None
    batch_rows: int
    replayed: int

    def __call__(self, step: int) -> Batch:
        """The batch of a step, shape (batch_rows, length): conversations first."""
        rows = self.batch_rows - self.replayed
        parts = [self.conversations.batch(range(step * rows, (step + 1) * rows))]
        if self.windows is not None and self.replayed:
            parts.append(self.windows.batch(range(step * self.replayed, (step + 1) * self.replayed)))
        return joined(parts)


def joined(parts: Sequence[Batch]) -> Batch:
    """Batches of one length below each other."""

    def below(name: str) -> NDArray[np.int64]:
        return np.concatenate([getattr(each, name) for each in parts])

    return Batch(inputs=below("inputs"), labels=below("labels"), positions=below("positions"), sources=below("sources"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """A run that has ended. `history`: a row of COLUMNS and `step` every few steps."""

    steps: int
    tokens: int
    seconds: float
    history: list[dict[str, Any]]

    def write_history(self, path: Path) -> int:
        """Write the rows as CSV; returns their number."""
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *COLUMNS], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.history)
        return len(self.history)


def recipe_of(config: SftConfig, *, compiled: bool) -> Recipe:
    """The engine's recipe of fine-tuning."""
    rates = config.rates
    return Recipe(
        precision=config.precision,
        compiled=compiled,
        scored_only=not compiled,
        micro_batch_samples=config.micro_batch_rows,
        rates=Rates(
            **rates.model_dump(),
            optimizer=config.optimizer,
            adamw_matrix=config.adamw_matrix,
        ),
        report_every_steps=config.report_every_steps,
        validate_every_steps=1 << 40,
        checkpoint_seconds=KEPT_SECONDS,
    )


def tune(
    model: PreTrainedModel,
    batches: Callable[[int], Batch],
    config: SftConfig,
    steps: Steps,
    run: Path,
    events: Events,
    *,
    compiled: bool = False,
) -> Tuned:
    """Train what of the model requires gradients, in place, going on from the last good checkpoint below `run`.

    Raises NonFiniteLossError and OutOfMemoryError.
    """
    trainer = trainer_of(model, recipe_of(config, compiled=compiled), events.note)
    return train_on(trainer, batches, steps, run, events)


def trainer_of(
    model: PreTrainedModel,
    recipe: Recipe,
    note: Callable[[str], None],
    loss: Callable[[PreTrainedModel], nn.Module] | None = None,
) -> Trainer:
    """The engine on this machine's device, alone; `loss` as Trainer has it."""
    return Trainer(model, recipe, World(device="cuda" if torch.cuda.is_available() else "cpu"), note, loss)


def train_on(trainer: Trainer, batches: Callable[[int], Batch], steps: Steps, run: Path, events: Events) -> Tuned:
    """Train until the steps or their clock end; the model then has the trained weights, in float32."""

    def report(row: Report) -> None:
        events.metrics({name: getattr(row, name) for name in COLUMNS}, row.step)
        events.progress(row.step, steps.last, "steps")

    if not steps.begin():
        return Tuned(steps=0, tokens=0, seconds=0.0, history=[])
    if steps.pace:  # a run that was broken off gets what is left now, not what it had then
        steps.pace.left_seconds, steps.pace.training_seconds = steps.pace.training_seconds, math.inf
    outcome = train(
        trainer, batches=batches, schedule=steps.schedule, pace=steps.pace, run=run, report=report, validate=None
    )
    weights = checkpoint.Checkpoint(run / checkpoint.name_of(outcome.steps)).weights(checkpoint.WEIGHT)
    trainer.model.float().load_state_dict(weights, strict=False)  # the masters, whatever it was computed in
    return Tuned(steps=outcome.steps, tokens=outcome.tokens, seconds=outcome.seconds, history=outcome.history)
