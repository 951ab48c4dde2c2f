"""What the loop says of itself every few steps. Plain torch."""

from dataclasses import dataclass

import numpy as np

from components.training.position import Position
from components.training.schedule import Schedule


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


class Gathered:
    """Losses and norms since the last report."""

    def __init__(self, position: Position) -> None:
        self.losses = position.losses
        self.norms = position.norms
        self.rate = 0.0
        self.since = (position.tokens, position.seconds)

    def add(self, loss: float, norm: float, rate: float) -> None:
        """One step's loss and gradient norm, and the rate of the matrices."""
        self.losses.append(loss)
        self.norms.append(norm)
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
