"""How far a run has come, and how it goes on from a checkpoint. Plain torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from components.training import checkpoint
from components.training.schedule import Schedule
from components.training.trainer import Trainer

SAVED = ("step", "tokens", "seconds", "history", "losses", "norms", "skipped")


@dataclass(slots=True, kw_only=True)
class Position:
    """How far a run has come. Losses and norms are those since the last report; `skipped` are numbers of batches that
    it passed over, in rising order."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    history: list[dict[str, float | int | None]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)


def resume(trainer: Trainer, run: Path, schedule: Schedule) -> Position:
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


def save(trainer: Trainer, run: Path, position: Position, schedule: Schedule) -> None:
    """Write a checkpoint of this position."""
    state = {
        **{name: getattr(position, name) for name in SAVED},
        "decisions": schedule.decisions,
        "rng": torch.get_rng_state().tolist(),
    }
    weights, optimizer = trainer.optimizer.masters(), trainer.optimizer.state()
    saved = checkpoint.Checkpoint(weights=weights, optimizer=optimizer, state=state)
    checkpoint.save(run, position.step, saved, trainer.recipe.checkpoints_kept)
