"""The training loop, in plain torch: it runs under Ray Train on a cluster and alone on a bare machine.

Covers: float32 or bfloat16 compute on float32 masters, compilation with a fall-back to eager, gradient accumulation,
clipping, a schedule decided in advance or by the clock, checkpoints, data-parallel workers.
Not covered: sharded parameters.
With the steps decided in advance a run is a pure function of its arguments, bit for bit at one world size and thread
count, broken off and resumed or not.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_utils import PreTrainedModel

from components.training import checkpoint
from components.training.optimizer import Optimizer, Rates
from components.training.pace import Pace
from components.training.schedule import Schedule

Precision = Literal["float32", "bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class NonFiniteLossError(Exception):
    """The loss of a step is not a number: training cannot go on, the last checkpoint is still good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Which of how many workers this is, and where it computes."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is trained; the data and the schedule are given apart."""

    precision: Precision
    compiled: bool
    micro_batch_samples: int
    rates: Rates
    report_every_steps: int
    validate_every_steps: int
    checkpoint_seconds: float
    checkpoints_kept: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the loop says every few steps. Means since the last report; seconds of training since its start."""

    step: int
    tokens: int
    loss: float
    gradient_norm: float
    learning_rate: float
    tokens_per_second: float
    seconds: float
    total_steps: int | None
    validation_bits_per_byte: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished run."""

    steps: int
    tokens: int
    seconds: float
    history: list[dict[str, float | int | None]]


class Loss(nn.Module):
    """Mean next-token loss in nats of a causal transformers model, on windows of T + 1 tokens, shape (B, T + 1)."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model: PreTrainedModel = model

    def forward(self, windows: Tensor) -> Tensor:
        """Scalar float32."""
        hidden = self.model.model(input_ids=windows[:, :-1], use_cache=False).last_hidden_state
        logits = self.model.lm_head(hidden).float()
        return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


class Trainer:
    """A model with its optimizer, ready to take steps."""

    def __init__(self, model: PreTrainedModel, recipe: Recipe, world: World, note: Callable[[str], None]) -> None:
        self.recipe = recipe
        self.world = world
        self.note = note
        self.optimizer = Optimizer(model.to(world.device), recipe.rates)
        self.model = model.to(DTYPES[recipe.precision])
        self.optimizer.write_back()
        self.eager = Loss(model)
        self.loss: Any = self.eager

    def warm_up(self, windows: NDArray[np.int64]) -> None:
        """Compile if asked to, on the shapes of a real batch, and change nothing. Falls back to eager with a note."""
        if self.recipe.compiled:
            compiled = torch.compile(self.eager, dynamic=False)
            try:
                compiled(self._tensor(windows[: self.recipe.micro_batch_samples])).backward()
                self.loss = compiled
            except Exception as error:  # whatever the compiler raises, training can do without it
                reason = " ".join(str(error).split())[:200]
                self.note(f"no compilation, training in eager mode: {type(error).__name__}: {reason}")
        if self.loss is self.eager:
            self.eager(self._tensor(windows[: self.recipe.micro_batch_samples])).backward()
        if self.world.size > 1:
            self.loss = DistributedDataParallel(self.loss)
        self.optimizer.write_back()

    def step(self, step: int, windows: NDArray[np.int64], share: float) -> tuple[float, float]:
        """One update from this worker's windows, (samples, T + 1). Returns the mean loss and gradient norm."""
        rows = self.recipe.micro_batch_samples
        parts = [windows[start : start + rows] for start in range(0, len(windows), rows)]
        total = torch.zeros((), device=self.world.device)
        for position, part in enumerate(parts):
            last = position == len(parts) - 1
            with nullcontext() if last or self.world.size == 1 else self.loss.no_sync():
                loss = self.loss(self._tensor(part)) * (len(part) / len(windows))
                loss.backward()
            total += loss.detach()
        if self.world.size > 1:
            torch.distributed.all_reduce(total, op=torch.distributed.ReduceOp.SUM)
            total /= self.world.size
        found = float(total)
        if not math.isfinite(found):
            raise NonFiniteLossError(f"step {step}: the loss is {found}; lower the learning rates or look at the data")
        return found, self.optimizer.step(step, share)

    def _tensor(self, windows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(windows).to(self.world.device)


def train(
    trainer: Trainer,
    *,
    windows: Callable[[int], NDArray[np.int64]],
    schedule: Schedule,
    pace: Pace | None,
    run: Path,
    report: Callable[[Report], None],
    validate: Callable[[PreTrainedModel], float] | None,
) -> Outcome:
    """Train to the schedule's end, going on from the last good checkpoint below `run`.

    windows     this worker's windows of a step, shape (samples, T + 1): a pure function of the step
    schedule    with decisions taken in advance, or empty beside a `pace` that takes them by the clock
    report      called on every worker, every `report_every_steps` and after the last step
    validate    bits per byte of a model, on worker 0 every `validate_every_steps`
    """
    recipe, world = trainer.recipe, trainer.world
    state = _resume(trainer, run, schedule)
    trainer.warm_up(windows(state.step))
    started, saved = time.monotonic() - state.seconds, time.monotonic()
    gathered = Gathered(state)
    while schedule.total_steps is None or state.step < schedule.total_steps:
        batch = windows(state.step)
        share = schedule.share(state.step)
        gathered.add(trainer.step(state.step, batch, share), share * recipe.rates.matrix)
        state.step += 1
        state.tokens += batch.shape[0] * (batch.shape[1] - 1) * world.size
        state.seconds = _agreed(time.monotonic() - started, world)
        if pace:
            pace.decide(schedule, state.step, state.seconds)
        ended = state.step == schedule.total_steps
        if state.step % recipe.report_every_steps == 0 or ended:
            due = validate is not None and world.rank == 0 and (state.step % recipe.validate_every_steps == 0)
            bits = validate(trainer.model) if due and validate else None
            report(gathered.report(state, schedule, bits))
        if world.rank == 0 and (time.monotonic() - saved > recipe.checkpoint_seconds or ended):
            _save(trainer, run, state, schedule)
            saved = time.monotonic()
    return Outcome(steps=state.step, tokens=state.tokens, seconds=state.seconds, history=state.history)


@dataclass(slots=True, kw_only=True)
class Position:
    """How far a run has come. Losses and norms are those since the last report."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    history: list[dict[str, float | int | None]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)


SAVED = ("step", "tokens", "seconds", "history", "losses", "norms")


class Gathered:
    """Losses and norms since the last report."""

    def __init__(self, position: Position) -> None:
        self.losses = position.losses
        self.norms = position.norms
        self.rate = 0.0
        self.since = (position.tokens, position.seconds)

    def add(self, found: tuple[float, float], rate: float) -> None:
        """One step's loss and gradient norm, and the rate of the matrices."""
        self.losses.append(found[0])
        self.norms.append(found[1])
        self.rate = rate

    def report(self, position: Position, schedule: Schedule, bits: float | None) -> Report:
        """Means since the last one; adds the row to the history and starts anew."""
        tokens, seconds = self.since
        report = Report(
            step=position.step,
            tokens=position.tokens,
            loss=float(np.mean(self.losses)),
            gradient_norm=float(np.mean(self.norms)),
            learning_rate=self.rate,
            tokens_per_second=(position.tokens - tokens) / max(1e-9, position.seconds - seconds),
            seconds=position.seconds,
            total_steps=schedule.total_steps,
            validation_bits_per_byte=bits,
        )
        position.history.append(
            {
                "step": report.step,
                "tokens": report.tokens,
                "loss": report.loss,
                "learning_rate": report.learning_rate,
                "validation_bits_per_byte": bits,
            }
        )
        self.losses.clear()
        self.norms.clear()
        self.since = (position.tokens, position.seconds)
        return report


def _resume(trainer: Trainer, run: Path, schedule: Schedule) -> Position:
    """Take over the last good checkpoint, if there is one: weights, momenta, decisions, position."""
    found = checkpoint.load_last_good(run, trainer.note)
    if found is None:
        return Position()
    trainer.optimizer.load(found.weights, found.optimizer)
    state: dict[str, Any] = found.state
    schedule.decisions[:] = [(start, end) for start, end in state["decisions"]]
    torch.set_rng_state(torch.tensor(state["rng"], dtype=torch.uint8))
    trainer.note(f"resumed at step {state['step']} after {state['seconds']:.1f} s of training")
    return Position(**{name: state[name] for name in SAVED})


def _save(trainer: Trainer, run: Path, position: Position, schedule: Schedule) -> None:
    state = {
        **{name: getattr(position, name) for name in SAVED},
        "decisions": schedule.decisions,
        "rng": torch.get_rng_state().tolist(),
    }
    weights, optimizer = trainer.optimizer.masters(), trainer.optimizer.state()
    saved = checkpoint.Checkpoint(weights=weights, optimizer=optimizer, state=state)
    checkpoint.save(run, position.step, saved, trainer.recipe.checkpoints_kept)


def _agreed(seconds: float, world: World) -> float:
    """Worker 0's clock on every worker, so that all take the same decisions."""
    if world.size == 1:
        return seconds
    shared = torch.tensor([seconds], dtype=torch.float64, device=world.device)
    torch.distributed.broadcast(shared, src=0)
    return float(shared)
