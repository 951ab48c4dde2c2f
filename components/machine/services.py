"""Processes that outlive the command that started them: Ray's head, Prefect, MLflow, the reconcile loop.

Each has a record in <state>/services/<name>.json and a log in <state>/logs/<name>.log. A record holds the process's
creation time beside its id, so that a recycled id is never taken for ours, and stopping ends the whole process tree.
"""

import contextlib
import fcntl
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from components.core import private
from components.core.artifact import write_file
from components.core.config import Settings, environment
from components.core.errors import BusyError, OvernightError


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One running service of this workspace."""

    name: str
    pid: int
    created_at: float
    url: str


def _record(settings: Settings, name: str) -> Path:
    return settings.state / "services" / f"{name}.json"


def log_path(settings: Settings, name: str) -> Path:
    """Where the service's output goes."""
    return settings.state / "logs" / f"{name}.log"


def running(settings: Settings, name: str) -> Service | None:
    """The service if its process is alive."""
    record = _record(settings, name)
    try:
        private.require_ours(record)  # else another user could have us end a process
        service = Service(**json.loads(record.read_text()))
        process = psutil.Process(service.pid)
        alive = abs(process.create_time() - service.created_at) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, TypeError, psutil.NoSuchProcess):
        return None
    return service if alive else None


def died(settings: Settings, name: str) -> bool:
    """Whether a service was started here and has ended, without anybody who stopped it."""
    return _record(settings, name).exists() and running(settings, name) is None


def start(
    settings: Settings,
    name: str,
    command: Sequence[str],
    *,
    url: str,
    ready: Callable[[], bool],
    variables: Mapping[str, str] | None = None,
    timeout_seconds: float = 90,
) -> Service:
    """Start a service in a session of its own and wait until `ready()`; one that runs already is returned as it is.

    Raises OvernightError with the end of its log when it exits or is not ready in time; nothing is left running then.
    """
    log = log_path(settings, name)
    for folder in (settings.state, log.parent, _record(settings, name).parent):
        private.folder(folder)
    with starting(settings, name):
        if service := running(settings, name):
            return service
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**environment(), **(variables or {})},
            )
        created_at = psutil.Process(process.pid).create_time()
        service = Service(name=name, pid=process.pid, created_at=created_at, url=url)
        write_file(_record(settings, name), json.dumps(asdict(service)).encode())
        _wait(settings, name, process, ready, timeout_seconds)
        process.returncode = 0  # it lives on by intention: no warning when this object goes
        return service


@contextlib.contextmanager
def starting(settings: Settings, name: str) -> Iterator[None]:
    """Let one process at a time start a service; the next one finds it running."""
    private.folder(_record(settings, name).parent)
    with _record(settings, name).with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _wait(
    settings: Settings, name: str, process: subprocess.Popen[bytes], ready: Callable[[], bool], timeout_seconds: float
) -> None:
    """Return once `ready()`; else stop what was started and raise OvernightError with the end of its log."""
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        code = process.poll()
        if code is not None or time.monotonic() > deadline:
            stop(settings, name)
            process.wait()
            why = f"exited with {code}" if code is not None else f"was not ready after {timeout_seconds:.0f} s"
            log = log_path(settings, name)
            lines = log.read_text(errors="replace").strip().splitlines()
            raise OvernightError(f"{name} {why}: {lines[-1] if lines else 'no output'} (whole log: {log})")
        time.sleep(0.1)


def stop(settings: Settings, name: str, grace_seconds: float = 5) -> bool:
    """End a service and all that it started: SIGTERM, then SIGKILL after a grace. False when it was not running."""
    service = running(settings, name)
    _record(settings, name).unlink(missing_ok=True)
    if service is None:
        return False
    tree = process_tree(service.pid)
    for process in tree:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(tree, timeout=grace_seconds)
    for process in alive:
        _signal(process.kill)
    psutil.wait_procs(alive, timeout=grace_seconds)
    return True


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return


def port_open(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def free_port(host: str) -> int:
    """A port that nobody held a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def require_port(host: str, port: int, purpose: str, setting: str, owner: Service | None = None) -> None:
    """Raise BusyError, naming the holder where it can be seen, unless the port can be bound or `owner` holds it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return
        except OSError as error:
            reason = error.strerror or str(error)
    if owner is not None and listens(owner, port):
        return
    pid = _listener(port)
    holder = f"process {pid} ({psutil.Process(pid).name()})" if pid is not None else "another process"
    raise BusyError(
        f"port {port} on {host} is needed for {purpose} and held by {holder} ({reason.lower()}); "
        f"stop it, or choose another with {setting}"
    )


def listens(service: Service, port: int) -> bool:
    """Whether a service, or a process that it started, listens on a port."""
    pid = _listener(port)
    return pid is not None and pid in {each.pid for each in process_tree(service.pid)}


def _listener(port: int) -> int | None:
    """The process that listens on a port, where we may see it."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    listeners = (each.pid for each in connections if each.status == psutil.CONN_LISTEN and each.laddr.port == port)
    return next((pid for pid in listeners if pid), None)


def process_tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants; none when it has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
