"""What runs where, in <state>/status.json: written by every reconcile, read by `overnight status`.

A status holds for as long as somebody renews it: one that is older than three periods is stale, whatever it says.
"""

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from components.core.artifact import write_file
from components.core.config import Settings
from components.core.errors import OvernightError
from components.core.private import folder
from components.serving.versions import WeightedVersion

PERIOD_SECONDS = 15.0
PERIODS_UNTIL_STALE = 3
REASON_CHARACTERS = 1000


class EnvironmentStatus(BaseModel):
    """One environment: what is live, and whether it is what Git asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    versions: tuple[WeightedVersion, ...]
    desired_commit: str | None
    live_commit: str | None
    stale: bool
    reason: str | None


class Status(BaseModel):
    """The state of serving by environment, in the order of their names, and when somebody last looked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    gateway_url: str | None
    environments: tuple[EnvironmentStatus, ...]


def status_path(settings: Settings) -> Path:
    """Where the status is."""
    return settings.state / "status.json"


def read_status(settings: Settings) -> Status | None:
    """What the last reconcile left; None before the first one."""
    path = status_path(settings)
    try:
        return Status.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise OvernightError(f"{path}: cannot be read; `overnight up` writes it anew") from error


def last_status(settings: Settings) -> Status | None:
    """The status that stands there, to build on; None where there is none that can be read."""
    try:
        return read_status(settings)
    except OvernightError:
        return None


def write_status(settings: Settings, status: Status) -> None:
    """Replace the status as a whole."""
    folder(settings.state)
    write_file(status_path(settings), status.model_dump_json(indent=1).encode())


def mark_stale(settings: Settings, reason: str, *, serves: bool = True) -> None:
    """Write that no environment is known to be what Git asks for. With `serves` false nothing is live any more."""
    last = last_status(settings)
    gone = {} if serves else {"versions": (), "live_commit": None}
    entries = last.environments if last else ()
    status = Status(
        at=datetime.now(UTC),
        gateway_url=last.gateway_url if last and serves else None,
        environments=tuple(each.model_copy(update={"stale": True, "reason": reason} | gone) for each in entries),
    )
    write_status(settings, status)


def rows(status: Status, now: datetime, *, answers: bool) -> list[dict[str, Any]]:
    """The environments as they are to be read now: stale, with the age, when nobody renewed the status in time, and
    when the gateway that should serve them does not answer."""
    age = (now - status.at).total_seconds()
    doubts = []
    if age > PERIODS_UNTIL_STALE * PERIOD_SECONDS:
        doubts.append(f"last reconciled {age:.0f} s ago")
    elif age < -PERIOD_SECONDS:
        doubts.append(f"dated {-age:.0f} s ahead of this machine's clock")
    if status.gateway_url and not answers:
        doubts.append(f"nothing answers at {status.gateway_url}")
    table = []
    for each in status.environments:
        reasons = [*doubts, *([each.reason] if each.reason else [])]
        row = each.model_dump(mode="json") | {
            "stale": bool(reasons) or each.stale,
            "reason": "; ".join(reasons) or None,
        }
        table.append(row | {"age_seconds": round(age)})
    return table


def say(settings: Settings, reason: str, *, serves: bool, aloud: bool = True) -> None:
    """Write a reason into the status and the log, as far as the disk lets us."""
    with contextlib.suppress(Exception):
        mark_stale(settings, reason, serves=serves)
    if aloud:
        with contextlib.suppress(OSError):
            print(reason, flush=True)
