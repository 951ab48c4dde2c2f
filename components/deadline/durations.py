"""What the stages of this workspace took, cycle by cycle: <state>/durations.json, the latest few of each stage.

The cycle writes it, the budget reads it. It is no dependency of `plan`, as the clock and the probe are none: a
measurement of the moment, which would make every repeated cycle plan anew. What was made of it stands in plan.json.
"""

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from components.core.artifact import write_file
from components.core.errors import DataError, one_line
from components.core.private import folder

NAME = "durations.json"
KEPT = 5


class Duration(BaseModel):
    """One run of one stage that DVC did not find in its cache."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cycle: str
    stage: str
    parameters: str = Field(description="digest of its section of params.yaml; another section is another amount")
    startup_seconds: float
    work_seconds: float
    given_seconds: float | None = Field(description="what a stage that ends by the clock was given; None for others")
    pace: float = Field(gt=0, description="of the machine at that time, see components.deadline.division")

    @property
    def seconds(self) -> float:
        """Start-up and work."""
        return self.startup_seconds + self.work_seconds


_List = TypeAdapter(list[Duration])


def read(state: Path) -> list[Duration]:
    """Oldest first; none before the first cycle. Raises DataError for a file that is not of this version."""
    path = state / NAME
    try:
        return _List.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except ValidationError as error:
        raise DataError(
            f"{path}: cannot be read ({one_line(error, 120)}); delete it, the next cycle measures anew"
        ) from error


def write(state: Path, durations: Iterable[Duration]) -> None:
    """Keep the latest few of each stage."""
    kept: list[Duration] = []
    for each in reversed(list(durations)):
        if sum(other.stage == each.stage for other in kept) < KEPT:
            kept.insert(0, each)
    folder(state)
    write_file(state / NAME, _List.dump_json(kept, indent=1))
