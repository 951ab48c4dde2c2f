"""Decisions by the clock: when the decay starts, and where it ends. Standard library only.

A pure function of (steps done, seconds spent) pairs: workers that agree on these agree on the decisions.
"""

import math
from dataclasses import dataclass, field

from components.training.engine.schedule import Schedule

# The speed is looked at after the first few steps, then once in this share of the time.
FIRST_STEPS = 3
WINDOW_SHARE = 0.05
# A new end is decided only when it differs by more than this share of what is left.
TOLERANCE = 0.02


@dataclass(slots=True, kw_only=True)
class Pace:
    """A budget of training seconds spent in full: stable until its last `decay_share`, then decaying to its end.

    A run that was broken off has `left_seconds` until its stage must end: what it lost is not made up for.
    The end is foreseen from the speed since the last look, at most at `max_steps`; it is now when the time is up.
    """

    training_seconds: float
    decay_share: float
    left_seconds: float = math.inf
    max_steps: float = math.inf
    _marks: list[tuple[int, float]] = field(default_factory=list)

    def restart(self) -> None:
        """Forget the speed so far: the run went back to an earlier step."""
        self._marks.clear()

    def resumed(self, seconds: float) -> None:
        """The run goes on, or starts, after `seconds` of training."""
        self.training_seconds = max(seconds, min(self.training_seconds, seconds + self.left_seconds))

    def decide(self, schedule: Schedule, step: int, seconds: float) -> None:
        """Take the decision that is due after `step` steps and `seconds` seconds, if one is."""
        planned, left = schedule.total_steps, self.training_seconds - seconds
        if planned is not None and step >= planned:
            return
        if left <= 0:
            schedule.decide(step, step)
            return
        if not self._marks:
            self._marks.append((step, seconds))
            return
        mark_step, mark_seconds = self._marks[-1]
        starts = planned is None and seconds >= (1 - self.decay_share) * self.training_seconds
        first = len(self._marks) == 1 and step == mark_step + FIRST_STEPS
        if not (starts or first or seconds >= mark_seconds + WINDOW_SHARE * self.training_seconds):
            return
        speed_from = self._marks[-2] if starts and len(self._marks) > 1 else (mark_step, mark_seconds)
        per_step = (seconds - speed_from[1]) / (step - speed_from[0])
        self._marks.append((step, seconds))
        end = int(min(step + int(left / per_step), self.max_steps))
        if starts or (planned is not None and abs(end - planned) > max(1.0, TOLERANCE * (planned - step))):
            schedule.decide(step, end)
