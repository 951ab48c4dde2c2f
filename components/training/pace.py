"""Decisions by the clock: when the decay starts, and where it ends. Standard library only.

A pure function of (steps done, seconds spent) pairs: workers that agree on these agree on the decisions.
"""

import math
from dataclasses import dataclass, field

from components.training.schedule import Schedule

# A new end is decided only when it differs by more than this share of what is left.
TOLERANCE = 0.02


@dataclass(slots=True, kw_only=True)
class Pace:
    """A budget of training seconds spent in full: stable until its last `decay_share`, then decaying to its end.

    A run that was broken off has `left_seconds` until its stage must end: what it lost is not made up for.
    The end is foreseen from the speed of the last `window_share` of the budget, and corrected at that interval.
    """

    training_seconds: float
    decay_share: float
    left_seconds: float = math.inf
    window_share: float = 0.05
    _marks: list[tuple[int, float]] = field(default_factory=list)

    def restart(self) -> None:
        """Forget the speed so far: the run went back to an earlier step."""
        self._marks.clear()

    def resumed(self, seconds: float) -> None:
        """The run goes on, or starts, after `seconds` of training."""
        self.training_seconds = max(seconds, min(self.training_seconds, seconds + self.left_seconds))

    def decide(self, schedule: Schedule, step: int, seconds: float) -> None:
        """Take the decision that is due after `step` steps and `seconds` seconds, if one is."""
        if not self._marks:
            self._marks.append((step, seconds))
            return
        mark_step, mark_seconds = self._marks[-1]
        starts = schedule.decay_start_step is None and seconds >= (1 - self.decay_share) * self.training_seconds
        if not starts and seconds < mark_seconds + self.window_share * self.training_seconds:
            return
        speed_from = self._marks[-2] if starts and len(self._marks) > 1 else (mark_step, mark_seconds)
        left = max(0.0, self.training_seconds - seconds)
        per_step = (seconds - speed_from[1]) / (step - speed_from[0])
        self._marks.append((step, seconds))
        end = step + int(left / per_step)
        planned = schedule.total_steps
        if starts or (planned is not None and abs(end - planned) > max(1.0, TOLERANCE * (planned - step))):
            schedule.decide(step, end)
