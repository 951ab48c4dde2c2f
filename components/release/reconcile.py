"""Make serving equal to the environment file: read Git, check the files of each version, stage, shift, drop.

Safe to repeat and to be cut off at any step. A failure leaves what is live as it is, marks it stale with the reason in
<state>/status.json, and raises. Changes by hand, in Ray Serve or in Git, are found on the next call.
Not covered: a canary that watches itself, histories that were rewritten, signatures.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import ray

from components.core import cluster
from components.core.config import Settings
from components.core.errors import ConfigError, OvernightError
from components.core.private import folder
from components.release import environment, registry
from components.release.config import ReleaseConfig
from components.release.environment import Desired
from components.release.status import EnvironmentStatus, Status, write_status
from components.serving import deploy
from components.serving.config import ServingConfig
from components.serving.router import Table, Target


def reconcile(settings: Settings, release: ReleaseConfig, serving: ServingConfig) -> Status:
    """Bring the live state to the desired one, and return the status that was written.

    Needs a running Ray: its head keeps what is served alive after this process. One reconcile at a time; another one
    waits. Raises OvernightError, BusyError when the port is taken, ConfigError for an environment file that cannot be
    used or that would take everything out of production.
    """
    with _alone(settings):
        _require_ray(settings, release)
        with cluster.connect():
            return _converge(settings, release, serving)


def agrees(settings: Settings, release: ReleaseConfig, serving: ServingConfig) -> bool:
    """Whether what serves is what Git asks for, and healthy; cheap enough for a loop. Needs a connection to Ray.

    Changes nothing but the status: what cannot be read makes it stale, and raises.
    """
    desired: Desired | None = None
    try:
        desired = environment.read(settings, release.environment, release)
        live = deploy.live()
        equal = _equal(_table(desired, serving), live)
    except Exception as error:
        _write(settings, release, desired, deploy.live(), str(error) or type(error).__name__)
        raise
    if equal:
        _write(settings, release, desired, live, None)
    return equal


def _converge(settings: Settings, release: ReleaseConfig, serving: ServingConfig) -> Status:
    """Reconcile, alone and with Ray at hand."""
    desired: Desired | None = None
    try:
        desired = environment.read(settings, release.environment, release)
        wanted, live = _table(desired, serving), deploy.live()
        if wanted is None and live is not None:
            raise ConfigError(
                f"{release.environment}.yaml at {desired.commit[:12]} lists no versions while "
                f"{len(live.targets)} are live; an empty state is not applied, `overnight rollback` mends it"
            )
        if wanted is not None and not _equal(wanted, live):
            files = {each.digest: registry.resolve(settings, each.version, each.digest) for each in wanted.targets}
            deploy.apply(settings, serving, wanted, files)
            live = deploy.live()
    except Exception as error:
        _write(settings, release, desired, deploy.live(), str(error) or type(error).__name__)
        raise
    return _write(settings, release, desired, live, None)


def _equal(wanted: Table | None, live: Table | None) -> bool:
    """Whether the gateway serves what is wanted, from applications that all run."""
    return wanted == live and (wanted is None or deploy.healthy(wanted))


def _table(desired: Desired, serving: ServingConfig) -> Table | None:
    """The desired state as the gateway's table; None for a state without versions."""
    if not desired.file.versions:
        return None
    return Table(
        environment=desired.file.environment,
        commit=desired.commit,
        serving=deploy.serving_digest(serving),
        targets=tuple(Target.model_validate(each.model_dump()) for each in desired.file.versions),
    )


def _write(
    settings: Settings, release: ReleaseConfig, desired: Desired | None, live: Table | None, reason: str | None
) -> Status:
    """Write and return the status. Stale means: not known to be what Git asks for."""
    entry = EnvironmentStatus(
        name=release.environment,
        versions=live.targets if live else (),
        desired_commit=desired.commit if desired else None,
        live_commit=live.commit if live else None,
        stale=reason is not None,
        reason=reason,
    )
    status = Status(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        gateway_url=deploy.url(settings) if live else None,
        environments=(entry,),
    )
    write_status(settings, status)
    return status


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Hold the lock of this state directory; the kernel frees it when the process ends, however it ends."""
    folder(settings.state)
    with (settings.state / "reconcile.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _require_ray(settings: Settings, release: ReleaseConfig) -> None:
    """Raise OvernightError, after noting it, rather than start a Ray that would end with this process."""
    try:
        cluster.check_reachable(settings)
        if not ray.is_initialized() and cluster.address(settings) is None:
            raise OvernightError("no Ray runs that could serve; `overnight up` starts one")
    except OvernightError as error:
        _write(settings, release, None, None, str(error))
        raise
