"""Make serving equal to the environment file: read Git, check the files of each version, stage, shift, drop.

Safe to repeat and to be cut off at any step. A failure leaves what is live as it is, marks it stale with the reason in
<state>/status.json, and raises. Changes by hand, in Ray Serve or in Git, are found on the next call.
Not covered: a canary that watches itself, histories that were rewritten, signatures.
"""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import ray

from components.core import cluster
from components.core.config import Settings
from components.core.errors import ConfigError, OvernightError, one_line
from components.core.private import folder
from components.core.services import port_open
from components.release import environment, registry
from components.release.config import ReleaseConfig
from components.release.environment import Desired
from components.release.status import REASON_CHARACTERS, EnvironmentStatus, Status, write_status
from components.serving import deploy
from components.serving.config import ServingConfig
from components.serving.router import Table


def reconcile(settings: Settings, release: ReleaseConfig, serving: ServingConfig) -> Status:
    """Bring the live state to the desired one, and return the status that was written.

    Needs a running Ray: its head keeps what is served alive after this process. One reconcile at a time; another one
    waits. Raises OvernightError, BusyError when the port is taken, ConfigError for an environment file that cannot be
    used or that would take everything out of production.
    """
    with _alone(settings), joined(settings, release):
        return _converge(settings, release, serving)


@contextmanager
def joined(settings: Settings, release: ReleaseConfig) -> Iterator[None]:
    """Be connected to the Ray that serves, for the length of a block. Raises OvernightError, after noting it."""
    with ExitStack() as stack:
        try:
            _require_ray(settings)
            stack.enter_context(cluster.connect())
        except Exception as error:
            _write_without_ray(settings, release, error)
            raise
        yield


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
            _write(settings, release, desired, live, f"{desired.commit[:12]} is being brought up")
            files = {each.digest: registry.resolve(settings, each.version, each.digest) for each in wanted.targets}
            deploy.apply(settings, serving, wanted, files)
            live = deploy.live()
    except Exception as error:
        _write(settings, release, desired, _still_live(), one_line(error, REASON_CHARACTERS))
        raise
    return _write(settings, release, desired, live, None)


def _still_live() -> Table | None:
    """What serves after a failure; nothing where Ray itself has gone."""
    try:
        return deploy.live()
    except Exception:
        return None


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
        targets=desired.file.versions,
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
        at=datetime.now(UTC),
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


def _require_ray(settings: Settings) -> None:
    """Raise OvernightError rather than start a Ray that would end with this process, or wait for one that is gone."""
    cluster.check_reachable(settings)
    where = cluster.address(settings)
    if ray.is_initialized():
        answers = cluster.answers()
    elif where is None:
        raise OvernightError("no Ray runs that could serve; `overnight up` starts one")
    else:
        host, _, port = where.rpartition(":")
        answers = settings.ray_address is not None or port_open(host, int(port))
    if not answers:
        raise OvernightError(f"Ray at {where or cluster.joined_at()} does not answer; `overnight up` starts another")


def _write_without_ray(settings: Settings, release: ReleaseConfig, error: Exception) -> None:
    """Say what Git asks for, or why it cannot be read, beside why nothing can serve it."""
    desired, reasons = None, [one_line(error, REASON_CHARACTERS)]
    try:
        desired = environment.read(settings, release.environment, release)
    except Exception as cause:
        reasons.insert(0, one_line(cause, REASON_CHARACTERS))
    _write(settings, release, desired, None, "; ".join(reasons))
