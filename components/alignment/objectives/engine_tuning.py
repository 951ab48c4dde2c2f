"""Fine-tune with our own training engine: rows of conversations beside pretraining windows.

Covers: all weights or some of them; the steps of fixed mode or the clock; checkpoints, and going on after a kill;
several workers, each with its share of every batch (ray_tuning.py).
"""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from components.alignment.config import SftConfig
from components.alignment.examples.packing import Rows
from components.alignment.objectives.replay import Windows
from components.alignment.objectives.tuning import Steps
from components.core.events import Events
from components.training.engine import checkpoint
from components.training.engine.batches.batch import Batch, joined
from components.training.engine.devices.parallel import agreed
from components.training.engine.figures import Report
from components.training.engine.loop import train
from components.training.engine.model.shape import RECURRENT
from components.training.engine.optimizer import Rates
from components.training.engine.trainer import Recipe, Trainer, World

COLUMNS = ("tokens", "loss", "learning_rate", "gradient_norm", "tokens_per_second")
KEPT_SECONDS = 30.0  # between checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """What each step reads: a pure function of the step.

    replayed   rows of each batch that are pretraining windows
    anchored   the column `anchored` says which rows these are (AnchoredLoss)
    """

    conversations: Rows
    windows: Windows | None
    batch_rows: int
    replayed: int
    anchored: bool = False

    @property
    def steps_of_epoch(self) -> float:
        """Steps that read every conversation once."""
        return self.conversations.rows_of_epoch() / (self.batch_rows - self.replayed)

    def __call__(self, step: int) -> Batch:
        """The batch of a step, `batch_rows` of them: conversations first."""
        rows = self.batch_rows - self.replayed
        parts = [self.conversations.batch(range(step * rows, (step + 1) * rows))]
        if self.windows is not None and self.replayed:
            parts.append(self.windows.batch(range(step * self.replayed, (step + 1) * self.replayed)))
        batch = joined(parts, self.conversations.pad)
        if not (self.anchored and self.replayed):
            return batch
        return replace(batch, columns={"anchored": np.arange(len(batch)) >= rows})


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


def recipe_of(config: SftConfig, *, compiled: bool, recurrent: bool = False) -> Recipe:
    """The engine's recipe of fine-tuning. What a state passes through anyway (`recurrent`) is not kept apart: windows
    are read as in pretraining, conversations lie in rows of their own."""
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
        isolate_documents=not recurrent,
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
    loss: nn.Module | None = None,
) -> Tuned:
    """Train what of the model requires gradients, in place, going on from the last good checkpoint below `run`.

    loss   see Trainer

    Raises NonFiniteLossError and OutOfMemoryError.
    """
    recurrent = model.config.model_type in RECURRENT
    trainer = trainer_of(model, recipe_of(config, compiled=compiled, recurrent=recurrent), events.note, loss)
    return train_on(trainer, batches, steps, run, events)


def trainer_of(
    model: PreTrainedModel,
    recipe: Recipe,
    note: Callable[[str], None],
    loss: nn.Module | None = None,
) -> Trainer:
    """The engine on this machine's device, alone; `loss` as Trainer has it."""
    return Trainer(model, recipe, World(device="cuda" if torch.cuda.is_available() else "cpu"), note, loss)


def train_on(trainer: Trainer, batches: Callable[[int], Batch], steps: Steps, run: Path, events: Events) -> Tuned:
    """Train until the steps or their clock end; the model then has the trained weights, in float32."""

    def report(row: Report) -> None:
        events.metrics({name: getattr(row, name) for name in COLUMNS}, row.step)
        events.progress(row.step, steps.last, "steps")

    tuned = take_steps(trainer, batches, steps, run, report)
    load_weights(trainer.model, run, tuned)
    return tuned


def take_steps(
    trainer: Trainer, batches: Callable[[int], Batch], steps: Steps, run: Path, report: Callable[[Report], None]
) -> Tuned:
    """This worker's part of all steps; none when no time is left."""
    if not steps.begin():
        return Tuned(steps=0, tokens=0, seconds=0.0, history=[])
    if steps.pace:  # a run that was broken off gets what is left now, not what it had then
        left = agreed(steps.pace.training_seconds, trainer.world)
        steps.pace.left_seconds, steps.pace.training_seconds = left, math.inf
    outcome = train(
        trainer, batches=batches, schedule=steps.schedule, pace=steps.pace, run=run, report=report, validate=None
    )
    weights = checkpoint.Checkpoint(run / checkpoint.name_of(outcome.steps)).weights(checkpoint.WEIGHT)
    trainer.model.float().load_state_dict(weights, strict=False)  # the masters, whatever it was computed in
    return Tuned(steps=outcome.steps, tokens=outcome.tokens, seconds=outcome.seconds, history=outcome.history)


def load_weights(model: PreTrainedModel, run: Path, tuned: Tuned) -> None:
    """Set the model to what a run has made of it: the masters, whatever it was computed in."""
    if tuned.steps:
        weights = checkpoint.Checkpoint(run / checkpoint.name_of(tuned.steps)).weights(checkpoint.WEIGHT)
        model.float().load_state_dict(weights, strict=False)
