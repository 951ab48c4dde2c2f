"""The clock that a stage reads: its own seconds, their end, and what it keeps of them in reserve.

In deadline mode the cycle says when a stage ends as it starts it, the plan where there is no cycle. In fixed mode no
clock ends it, its own step counts do.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import psutil
from pydantic import ValidationError

from components.core.config import read_settings
from components.core.errors import ArtifactError, one_line
from components.deadline.config import TimePlan

# A process older than this was not started for its task (a test, a notebook): its age is no start-up cost.
MAX_STARTUP_SECONDS = 120.0


def process_seconds() -> float:
    """Seconds since this process was started for its task; 0 for one that is too old for that."""
    age = time.time() - psutil.Process().create_time()
    return age if age < MAX_STARTUP_SECONDS else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """`seconds` of a whole stage, its start-up included, from `started` on (monotonic); None where no clock ends it.

    Of these `reserve_seconds` are for what follows the work that the clock ends: measuring, saving.
    """

    seconds: float | None
    started: float
    startup_seconds: float = 0.0
    reserve_seconds: float = 0.0

    @classmethod
    def read(cls, plan: Path, stage: str) -> Self:
        """That of a stage whose process has just begun, by the artifact of the plan. Raises ArtifactError."""
        path, settings = plan / "plan.json", read_settings()
        try:
            times = TimePlan.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ArtifactError(f"{path}: cannot be read as a plan: {one_line(error)}; run plan again") from error
        startup, seconds = process_seconds(), None
        if times.mode == "deadline":
            if stage not in times.stage_seconds:
                raise ArtifactError(f"plan: stage_seconds has no {stage}; run plan again")
            ends_at = settings.stage_ends_at
            seconds = times.stage_seconds[stage] if ends_at is None else ends_at - time.time() + startup
        return cls(seconds=seconds, started=time.monotonic() - startup, startup_seconds=startup)

    def keep(self, reserve_seconds: float) -> Self:
        """The same with so much in reserve."""
        return replace(self, reserve_seconds=reserve_seconds)

    def record(self) -> dict[str, float | None]:
        """For the manifest's `run`."""
        return {"startup_seconds": self.startup_seconds, "given_seconds": self.seconds}

    @property
    def elapsed_seconds(self) -> float:
        """Since the process of the stage began."""
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """Until only the reserve is left; None where no clock ends the stage."""
        return None if self.seconds is None else self.seconds - self.reserve_seconds - self.elapsed_seconds

    @property
    def ends_at(self) -> float | None:
        """When only the reserve is left, seconds since the epoch."""
        return None if (left := self.seconds_left) is None else time.time() + left
