"""How long a stage of alignment may take: what the cycle gives it when it starts, else the plan's seconds, in deadline
mode; its own step counts in fixed mode."""

import time
from dataclasses import dataclass

import psutil

from components.core.config import read_settings
from components.core.errors import ArtifactError
from components.training.config import Plan

# A process older than this was not started for this stage (a test, a notebook): its age is no start-up cost.
MAX_STARTUP_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """`seconds` for the whole stage, its start-up included, counted from `started` (monotonic); None in fixed mode."""

    started: float
    startup_seconds: float
    seconds: float | None

    @classmethod
    def for_stage(cls, plan: Plan, stage: str) -> "Clock":
        """The clock of a stage that has just been imported. Raises ArtifactError when the plan does not know it."""
        age = time.time() - psutil.Process().create_time()
        startup_seconds = age if age < MAX_STARTUP_SECONDS else 0.0
        seconds: float | None = None
        if plan.mode == "deadline":
            if stage not in plan.stage_seconds:
                raise ArtifactError(f"plan: stage_seconds has no {stage}; run plan again")
            ends_at = read_settings().stage_ends_at
            seconds = plan.stage_seconds[stage] if ends_at is None else ends_at - time.time() + startup_seconds
        return cls(started=time.monotonic() - startup_seconds, startup_seconds=startup_seconds, seconds=seconds)

    def record(self) -> dict[str, float | None]:
        """For the manifest's `run`."""
        return {"startup_seconds": self.startup_seconds, "given_seconds": self.seconds}

    @property
    def elapsed_seconds(self) -> float:
        """Since the process of the stage began."""
        return time.monotonic() - self.started

    def seconds_left(self, reserve_seconds: float = 0.0) -> float | None:
        """Until the end of the budget less a reserve for what must still follow; None in fixed mode."""
        return None if self.seconds is None else self.seconds - reserve_seconds - self.elapsed_seconds
