"""One Ray for the whole cycle: a head that the cycle starts once and every stage joins, or a cluster at RAY_ADDRESS.

A stage calls `connect()`. Outside a cycle (a plain `dvc repro`) it finds no head and starts a Ray of its own, which
ends with it.
"""

import atexit
import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.exceptions import RayError, RayTaskError

from components.core import private
from components.core.config import Settings, read_settings
from components.core.errors import ConfigError, OvernightError, one_line
from components.machine import service_keys, services

SERVICE = "ray"
TOKEN_VARIABLE = "RAY_AUTH_TOKEN_PATH"
SCRATCH, SESSIONS = "overnight-ray-", "r"
# Shared memory for objects in flight. Ray's default, 30 % of the machine, is far more than a stage here keeps there.
OBJECT_STORE_BYTES = 2 * 2**30
# A task whose worker died is run again this often; then it is the task's fault.
_MAX_RETRIES = 4
_CANCEL_SECONDS = 10
_LEAVE_SECONDS = 10


def _num_cpus(settings: Settings) -> int:
    return settings.ray_num_cpus or os.cpu_count() or 1


def address(settings: Settings) -> str | None:
    """The address of the Ray to join: the configured one, else this workspace's running head, else None."""
    if settings.ray_address:
        return settings.ray_address
    head = services.running(settings, SERVICE)
    return head.url if head else None


def check_reachable(settings: Settings) -> None:
    """Raise ConfigError at once when the configured Ray does not answer; ray.init itself would try for a minute."""
    if settings.ray_address is None or settings.ray_address in ("auto", "local"):
        return
    host, _, port = settings.ray_address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"RAY_ADDRESS is {settings.ray_address!r}; needed host:port or ray://host:port")
    if not services.port_open(host, int(port)):
        raise ConfigError(
            f"RAY_ADDRESS is {settings.ray_address} and nothing answers there; "
            "start that cluster, or unset RAY_ADDRESS to let this workspace start its own Ray"
        )


@contextlib.contextmanager
def connect() -> Iterator[None]:
    """Join the cycle's Ray for the length of a block, or start one for it. Nested calls join what is there."""
    if ray.is_initialized():
        yield
        return
    settings = read_settings()
    check_reachable(settings)
    where = address(settings)
    use_key(settings)
    with contextlib.ExitStack() as stack:
        if where is None:
            # Ray's own default, /tmp/ray, is one that any user may have made first.
            scratch = tempfile.TemporaryDirectory(prefix=SCRATCH, ignore_cleanup_errors=True)
            _start_local(settings, Path(stack.enter_context(scratch)) / SESSIONS)
        else:
            _join(where)
        try:
            yield
        except BaseException:
            _leave_in_time()
            raise
        ray.shutdown()


def _start_local(settings: Settings, directory: Path) -> None:
    ray.init(
        address="local",
        num_cpus=_num_cpus(settings),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        logging_level=logging.WARNING,
        log_to_driver=False,
        _temp_dir=str(directory),
    )


def _join(where: str) -> None:
    try:
        ray.init(address=where, logging_level=logging.WARNING, log_to_driver=False)
    except (ConnectionError, RuntimeError) as error:
        raise OvernightError(f"Ray at {where} refused us: {one_line(error, 300)}") from error


def use_key(settings: Settings) -> None:
    """Show this workspace's key to its own Ray, from this process and those that it starts. A configured cluster is
    shown what its user set for it."""
    if settings.ray_address is None:
        service_keys.make_ray_key(settings)
        os.environ[TOKEN_VARIABLE] = str(service_keys.ray_path(settings))
        AuthenticationTokenLoader.instance().reset_cache()  # it keeps the one of a workspace before


def _leave_in_time() -> None:
    """Leave a Ray that may be the very cause: leaving a dead one took 22 s, and after 60 s Ray ends the process without
    a word."""
    leaving = threading.Thread(target=ray.shutdown, daemon=True, name="leave ray")
    if answers():
        leaving.start()
        leaving.join(_LEAVE_SECONDS)
    if leaving.is_alive() or ray.is_initialized():
        # Ray's own way out waits again, and its threads of a dead cluster crashed the interpreter's end (SIGSEGV).
        atexit.unregister(ray.shutdown)
        atexit.register(os._exit, 1)


def joined_at() -> str:
    """host:port of the control store of the Ray that this process joined."""
    return str(ray.get_runtime_context().gcs_address)


def answers() -> bool:
    """Whether the Ray that this process joined still listens. Always true of one joined by ray://, which tells us
    itself."""
    if ray.util.client.ray.is_connected():
        return True
    host, _, port = joined_at().rpartition(":")
    return services.port_open(host, int(port))


def run_tasks(
    function: Callable[..., Any], items: Sequence[Any], *shared: Any, describe: Callable[[Any], str] = str
) -> Iterator[tuple[int, Any]]:
    """`function(item, *shared)` for every item, each a Ray task on one core; (place of the item, result) as they end.

    Only a few more than the cores are under way at a time, so the driver holds neither all tasks nor all results. A
    task whose worker is killed runs again on another; tasks must bear being run twice. An exception in a task is raised
    here as it is; when workers keep dying, OvernightError says at which item (`describe`). What is under way is then
    cancelled.
    """
    if not items:
        return
    remote = ray.remote(num_cpus=1, max_retries=_MAX_RETRIES)(function)
    handed = [ray.put(each) for each in shared]
    todo = iter(enumerate(items))
    under_way: dict[Any, int] = {}
    try:
        while True:
            # The cores may become more while this runs, on a cluster that grows.
            window = 2 * int(ray.cluster_resources().get("CPU", 1)) + 1
            for place, item in islice(todo, max(0, window - len(under_way))):
                under_way[remote.remote(item, *handed)] = place
            if not under_way:
                return
            for done in ray.wait(list(under_way), num_returns=1)[0]:
                place = under_way.pop(done)
                yield place, _result(done, describe, items[place])
    finally:
        for reference in under_way:
            ray.cancel(reference)
        if under_way:
            ray.wait(list(under_way), num_returns=len(under_way), timeout=_CANCEL_SECONDS)


def _result(reference: Any, describe: Callable[[Any], str], item: Any) -> Any:
    """What a task returned. Raises its own exception, or OvernightError when no worker survived it."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise OvernightError(
            f"every worker died, {_MAX_RETRIES + 1} in all, on {describe(item)[:200]} ({reason}); look at that input, "
            "give the machine more memory, or make the tasks smaller"
        ) from error


def start_head(settings: Settings) -> str:
    """Start this workspace's Ray head unless one is there, and return the address to join."""
    check_reachable(settings)
    if (head := address(settings)) is not None:
        return head
    use_key(settings)
    private.folder(settings.state)
    with services.starting(settings, f"{SERVICE}-head"):
        return address(settings) or _start_head(settings)


def _start_head(settings: Settings) -> str:
    port = settings.ray_port or services.free_port(settings.host)
    where = f"{settings.host}:{port}"
    log = services.log_path(settings, SERVICE)
    _end_leftovers(settings)
    # Ray opens its folder to everybody: it stands in a private one.
    directory = private.scratch(_record(settings), SCRATCH) / SESSIONS
    command = [
        str(Path(sys.executable).with_name("ray")),
        *("start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=false"),
        f"--port={port}",
        # Fixed ports by default, which a second workspace on this machine would find taken.
        f"--ray-client-server-port={services.free_port(settings.host)}",
        f"--dashboard-agent-listen-port={services.free_port(settings.host)}",
        f"--node-ip-address={settings.host}",
        f"--num-cpus={_num_cpus(settings)}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={directory}",
    ]
    try:
        services.start(
            settings,
            SERVICE,
            command,
            url=where,
            ready=lambda: b"Ray runtime started" in log.read_bytes(),
            # Ray would run its workers at nice 15, behind everything else on the machine.
            variables={"RAY_worker_niceness": "0"},
        )
    except BaseException:
        private.discard(_record(settings), SCRATCH)
        raise
    return where


def _end_leftovers(settings: Settings) -> None:
    """End the parts of a head that was killed without them: they would hold its ports and memory."""
    if not services.died(settings, SERVICE) or not _record(settings).exists():
        return
    directory = _record(settings).read_text()
    for process in psutil.process_iter(["name", "cmdline"]):
        parts = process.info["name"] in ("gcs_server", "raylet")
        if parts and directory and any(directory in each for each in process.info["cmdline"] or ()):
            with contextlib.suppress(psutil.Error):
                process.kill()


def stop_head(settings: Settings) -> bool:
    """Stop this workspace's Ray head with everything on it. False when it was not running."""
    stopped = services.stop(settings, SERVICE)
    private.discard(_record(settings), SCRATCH)
    return stopped


def _record(settings: Settings) -> Path:
    """The file that names the folder of the head's sessions: a short one, since paths of sockets hold 107 bytes, and
    one a head, since Ray looks for clusters in it."""
    return settings.state / "services" / "ray.directory"
