"""How far a run has come, and how it goes on from a checkpoint. Plain torch."""

import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from components.training.engine import checkpoint
from components.training.engine.checkpoint import Piece
from components.training.engine.checkpoint_writer import Writer
from components.training.engine.devices.parallel import World, agreed
from components.training.engine.schedule import Schedule
from components.training.engine.trainer import Trainer

SAVED = ("step", "tokens", "seconds", "step_seconds", "began_at", "history", "losses", "norms", "skipped", "recent")
RANDOM = "rng."


@dataclass(slots=True, kw_only=True)
class Position:
    """How far a run has come. Losses and norms are those since the last report; `skipped` are numbers of batches that
    it passed over, in rising order. `step_seconds` of the training's `seconds` were spent in its steps; the stage began
    at `began_at`, seconds since the epoch."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    began_at: float = field(default_factory=time.time)
    history: list[dict[str, float | int | None]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    recent: list[tuple[float, float]] = field(default_factory=list)


def opened(run: Path, world: World, keep: int) -> Writer:
    """This worker's writer of checkpoints, of the same attempt on all workers."""
    return Writer(run, rank=world.rank, size=world.size, attempt=int(agreed(secrets.randbits(48), world)), keep=keep)


def resume(trainer: Trainer, writer: Writer, schedule: Schedule) -> Position:
    """Take over the last good checkpoint, if there is one: weights, momenta, decisions, position. All workers together,
    at the start of a run or in the middle of it; without one nothing is changed, and the position is step 0's.

    Worker 0 verifies and says which; the others read only the rows that they hold. Any number of workers and either
    way of dividing them may have written it.
    """
    writer.wait()
    world = trainer.world
    last_good = checkpoint.load_last_good(writer.run, trainer.note) if world.rank == 0 else None
    # One more than its step: 0 says that there is none.
    number = int(agreed(last_good.step + 1 if last_good else 0, world))
    if number == 0:
        return Position()
    last_good = last_good or checkpoint.Checkpoint(writer.run / checkpoint.name_of(number - 1))
    last_good.load(trainer.optimizer.pieces())
    trainer.optimizer.write_back()
    _set_random(last_good, world.rank)
    saved = last_good.state()
    schedule.decisions[:] = [(start, end) for start, end in saved["decisions"]]
    trainer.note(f"resumed at step {saved['step']} after {saved['seconds']:.1f} s of training")
    return Position(**{name: saved[name] for name in SAVED})


def save(trainer: Trainer, writer: Writer, position: Position, schedule: Schedule) -> None:
    """Begin a checkpoint of this position: all workers together, each with what it holds."""
    state = {**{name: getattr(position, name) for name in SAVED}, "decisions": schedule.decisions}
    writer.save(position.step, [*trainer.optimizer.pieces(), *_random(trainer.world.rank)], state)


def _random(rank: int) -> list[Piece]:
    """The states of a worker's generators."""
    states = {f"{RANDOM}{rank}": torch.get_rng_state()}
    if torch.cuda.is_available():
        states[f"{RANDOM}cuda.{rank}"] = torch.cuda.get_rng_state()
    return [Piece(name=name, tensor=each, shape=tuple(each.shape)) for name, each in states.items()]


def _set_random(last_good: checkpoint.Checkpoint, rank: int) -> None:
    """A worker's own generators, or with more workers than then those of another: samples are drawn by their place,
    so no two workers read the same whatever these say."""
    holder = rank % last_good.num_workers
    torch.set_rng_state(last_good.read(f"{RANDOM}{holder}"))
    if torch.cuda.is_available() and f"{RANDOM}cuda.{holder}" in last_good.tensors:
        torch.cuda.set_rng_state(last_good.read(f"{RANDOM}cuda.{holder}"))
