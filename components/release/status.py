"""What runs where, in <state>/status.json: written by every reconcile, read by `overnight status`."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.artifact import write_file
from components.core.config import Settings
from components.core.errors import OvernightError
from components.core.private import folder
from components.serving.router import Target


class EnvironmentStatus(BaseModel):
    """One environment: what is live, and whether it is what Git asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    versions: tuple[Target, ...]
    desired_commit: str | None
    live_commit: str | None
    stale: bool
    reason: str | None


class Status(BaseModel):
    """The state of serving at the end of a reconcile, `at` in ISO 8601."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: str
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


def write_status(settings: Settings, status: Status) -> None:
    """Replace the status as a whole."""
    folder(settings.state)
    write_file(status_path(settings), status.model_dump_json(indent=1).encode())
