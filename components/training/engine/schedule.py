"""The learning rate over steps: warm-up, stable, decay (WSD), or warm-up and a cosine. Standard library only.

In deadline mode nobody knows the last step in advance: the decay starts when the time left says so, and its end is
corrected from the measured speed while it runs. Each such decision is a pair of integers, so the recorded decisions
replay the very same rates without a clock.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Decay = Literal["wsd", "cosine"]


@dataclass(slots=True, kw_only=True)
class Schedule:
    """The share of the peak learning rate at each step, given what has been decided so far.

    decisions       [(step, last_step), ...]: from `step` on the way down is such that it ends at `last_step`.
                    The first one starts it, each later one moves its end. Steps rise strictly.
    decay           down to `final_share`: a straight line (wsd) or half a cosine, which wants its first decision at the
                    very beginning
    warmup_steps    the rise, in steps
    warmup_share    the rise, as the first share of that way: of a run whose steps nobody knows when it begins
    """

    final_share: float
    warmup_steps: int = 0
    warmup_share: float = 0.0
    decay: Decay = "wsd"
    decisions: list[tuple[int, int]] = field(default_factory=list)

    @property
    def decay_start_step(self) -> int | None:
        """The step at which the decay starts; None while it has not been decided."""
        return self.decisions[0][0] if self.decisions else None

    @property
    def total_steps(self) -> int | None:
        """The number of steps of the run; None while it has not been decided."""
        return self.decisions[-1][1] if self.decisions else None

    def decide(self, step: int, last_step: int) -> None:
        """From `step` on, decay so as to end at `last_step`. Raises ValueError for a decision that cannot hold."""
        if last_step < step:
            raise ValueError(f"a decay decided at step {step} cannot end at step {last_step}")
        if self.decisions and step <= self.decisions[-1][0]:
            raise ValueError(f"a decision at step {step} comes after one at step {self.decisions[-1][0]}")
        self.decisions.append((step, last_step))

    def share(self, step: int) -> float:
        """Share of the peak rate for the update made at `step` (0-based), from 0 to 1."""
        done, left = self._way(step)
        if done < self.warmup_share:
            start, end = self.decisions[0]
            return min(1.0, (done + 1 / max(1, end - start)) / self.warmup_share)
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        height = left / (1 - self.warmup_share)
        if self.decay == "cosine":
            height = (1 - math.cos(math.pi * height)) / 2
        return warmup * (self.final_share + (1 - self.final_share) * height)

    def _way(self, step: int) -> tuple[float, float]:
        """What of the way down is done and what is left: each decision spreads what is left over the steps ahead."""
        left, gone = 1.0, 0.0  # when the last decision was taken, and the share of that since then
        for position, (start, end) in enumerate(self.decisions):
            if step < start:
                break
            following = self.decisions[position + 1][0] if position + 1 < len(self.decisions) else None
            until = step if following is None else min(step, following)
            left -= left * gone
            gone = min(1.0, (until - start) / max(1, end - start))
        return 1 - left + left * gone, left - left * gone


def decay_start(steps: int, decay_share: float) -> int:
    """The step at which a run of fixed length starts to decay."""
    return steps - max(1, round(steps * decay_share))


def fixed(
    warmup_steps: int, final_share: float, decisions: Sequence[tuple[int, int]], decay: Decay = "wsd"
) -> Schedule:
    """A schedule with every decision taken in advance: fixed mode and replay."""
    schedule = Schedule(warmup_steps=warmup_steps, final_share=final_share, decay=decay)
    for step, last_step in decisions:
        schedule.decide(step, last_step)
    return schedule
