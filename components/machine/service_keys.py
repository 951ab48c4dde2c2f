"""The keys of a workspace: one that Prefect's and MLflow's servers ask for, one that Ray does. Files of 0600 below the
state folder, made on first use; never in arguments or logs."""

from pathlib import Path

from components.core import private
from components.core.config import Settings


def services_path(settings: Settings) -> Path:
    """The file with the key of Prefect and MLflow; their user is guard.USER."""
    return settings.state / "keys" / "services"


def services_key(settings: Settings) -> str:
    """That key."""
    private.folder(settings.state)
    return private.key(services_path(settings))


def ray_path(settings: Settings) -> Path:
    """The file with Ray's token, as Ray reads it by RAY_AUTH_TOKEN_PATH; absolute, since workers run elsewhere."""
    return settings.state.resolve() / "keys" / "ray"


def make_ray_key(settings: Settings) -> None:
    """See to it that Ray's token is there, and private."""
    private.folder(settings.state)
    private.key(ray_path(settings))
