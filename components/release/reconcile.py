"""Make serving equal to the file of an environment: read Git, check the files of each version, stage, shift, drop.

Safe to repeat and to be cut off at any step. A failure leaves what is live as it is, marks it stale with the reason in
<state>/status.json, and raises. Changes by hand, in Ray Serve or in Git, are found on the next call. The status holds
every environment of the repository by its name; a gateway serves one of them.
Not covered: a canary that watches itself, histories that were rewritten, signatures.
"""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import ray

from components.core.config import Settings
from components.core.errors import ConfigError, OvernightError, one_line
from components.core.private import folder
from components.machine import cluster
from components.machine.services import port_open
from components.release import registry
from components.release.config import ReleaseConfig
from components.release.environment import Desired, Snapshot
from components.release.status import REASON_CHARACTERS, EnvironmentStatus, Status, last_status, write_status
from components.serving.config import ServingConfig
from components.serving.gateway.router import Table
from components.serving.replicas import deploy


def reconcile(settings: Settings, environment: str, release: ReleaseConfig, serving: ServingConfig) -> Status:
    """Bring what the gateway serves to the desired state of an environment, and return the status that was written.

    Needs a running Ray: its head keeps what is served alive after this process. One reconcile at a time; another one
    waits. Raises OvernightError, BusyError when the port is taken, ConfigError for an environment file that cannot be
    used or that would take everything out of service.
    """
    with _alone(settings), joined(settings, environment, release):
        return _converge(_View(settings, environment, release), serving)


@contextmanager
def joined(settings: Settings, environment: str, release: ReleaseConfig) -> Iterator[None]:
    """Be connected to the Ray that serves, for the length of a block. Raises OvernightError, after noting it."""
    with ExitStack() as stack:
        try:
            _require_ray(settings)
            stack.enter_context(cluster.connect())
        except Exception as error:
            _write_without_ray(_View(settings, environment, release), error)
            raise
        yield


class _View:
    """What one reconcile knows of Git so far, as the status is to show it."""

    def __init__(self, settings: Settings, environment: str, release: ReleaseConfig) -> None:
        self.settings = settings
        self.environment = environment
        self._release = release
        self._desired: Desired | None = None
        self._others: tuple[EnvironmentStatus, ...] | None = None

    def look(self) -> Desired:
        """Ask Git for every environment. Raises what Snapshot.read raises of the one that is served."""
        snapshot = Snapshot(self.settings, self._release)
        self._others = tuple(self._elsewhere(snapshot, each) for each in snapshot.names() if each != self.environment)
        self._desired = snapshot.read(self.environment)
        return self._desired

    def write(self, live: Table | None, reason: str | None) -> Status:
        """Write and return the status. Stale means: not known to be what Git asks for."""
        entry = EnvironmentStatus(
            name=self.environment,
            versions=live.targets if live else (),
            desired_commit=self._desired.commit if self._desired else None,
            live_commit=live.commit if live else None,
            stale=reason is not None,
            reason=reason,
        )
        status = Status(
            at=datetime.now(UTC),
            gateway_url=deploy.url(self.settings) if live else None,
            environments=tuple(sorted((*self._known(), entry), key=lambda each: each.name)),
        )
        write_status(self.settings, status)
        return status

    def _known(self) -> tuple[EnvironmentStatus, ...]:
        """The other environments; where Git did not answer, as they were, and no longer known to be so."""
        if self._others is not None:
            return self._others
        doubt = {"versions": (), "live_commit": None, "stale": True, "reason": "Git did not say"}
        last = last_status(self.settings)
        kept = [each for each in last.environments if each.name != self.environment] if last else []
        return tuple(each.model_copy(update=doubt) for each in kept)

    def _elsewhere(self, snapshot: Snapshot, name: str) -> EnvironmentStatus:
        """An environment that the gateway here does not serve."""
        commit: str | None = None
        reason: str | None = None
        try:
            desired = snapshot.read(name)
            commit = desired.commit
            if desired.file.versions:
                reason = f"the gateway here serves {self.environment}"
        except OvernightError as error:
            reason = one_line(error, REASON_CHARACTERS)
        return EnvironmentStatus(
            name=name,
            versions=(),
            desired_commit=commit,
            live_commit=None,
            stale=reason is not None,
            reason=reason,
        )


def _converge(view: _View, serving: ServingConfig) -> Status:
    """Reconcile, alone and with Ray at hand."""
    settings = view.settings
    try:
        desired = view.look()
        wanted, live = _table(desired, serving), deploy.live()
        if wanted is None and live is not None:
            raise ConfigError(
                f"{view.environment}.yaml at {desired.commit[:12]} lists no versions while "
                f"{len(live.targets)} are live; an empty state is not applied, `overnight rollback {view.environment}` "
                "mends it"
            )
        if wanted is not None and not _equal(wanted, live):
            view.write(live, f"{desired.commit[:12]} is being brought up")
            files = {each.digest: registry.resolve(settings, each.version, each.digest) for each in wanted.targets}
            deploy.apply(settings, serving, wanted, files)
            live = deploy.live()
    except Exception as error:
        view.write(_still_live(), one_line(error, REASON_CHARACTERS))
        raise
    return view.write(live, None)


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


def _write_without_ray(view: _View, error: Exception) -> None:
    """Say what Git asks for, or why it cannot be read, beside why nothing can serve it."""
    reasons = [one_line(error, REASON_CHARACTERS)]
    try:
        view.look()
    except Exception as cause:
        reasons.insert(0, one_line(cause, REASON_CHARACTERS))
    view.write(None, "; ".join(reasons))
