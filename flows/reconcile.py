"""Keep serving equal to the environment file: a flow, a loop, and a process that starts the loop again.

`python -m flows.reconcile` starts the loop as a child, again whenever it ends, with longer and longer pauses. It also
watches Ray, whose end can hold the loop in a call for a minute: it says so in the status, starts the head again where
this workspace had started it, and then a new loop. The loop asks neither Prefect nor MLflow; where a Prefect server
answers, a change of what serves is recorded there.
Not covered: its own end, which the status's age shows and `overnight up` mends.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
import traceback
from typing import Any

import ray
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Completed, Failed, State

from components.core import cluster, services
from components.core.config import Settings, read_settings
from components.core.errors import OvernightError
from components.release import reconcile as release_reconcile
from components.release.reconcile import reason_of
from components.release.status import PERIOD_SECONDS, Status, mark_stale
from flows.params import read_params
from flows.subprocesses import run_tool
from flows.variables import prefect_api_url

COMMAND = (sys.executable, "-m", "flows.reconcile")
WATCH_SECONDS = 1.0
MISSES = 3
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0


@flow(name="reconcile", flow_run_name="reconcile", persist_result=False)
def reconcile() -> dict[str, Any]:
    """Make what serves equal to what Git says, once."""
    params = read_params()
    status = release_reconcile.reconcile(read_settings(), params.release, params.serving)
    return status.model_dump(mode="json")


def supervise(settings: Settings) -> None:
    """Keep a loop running, whatever ends it, and a Ray for it."""
    print("reconciling", flush=True)
    pause = SHORTEST_PAUSE_SECONDS
    while True:
        began = time.monotonic()
        try:
            _revive_ray(settings)
            ended = _watch_loop(settings)
        except Exception as error:
            ended = reason_of(error)
        lasted = time.monotonic() - began
        pause = SHORTEST_PAUSE_SECONDS if lasted > LONGEST_PAUSE_SECONDS else min(2 * pause, LONGEST_PAUSE_SECONDS)
        where = cluster.address(settings)
        _say(settings, f"{ended}; starting again in {pause:.0f} s", serves=where is not None and _answers(where))
        time.sleep(pause)


def _revive_ray(settings: Settings) -> None:
    """Start this workspace's head again if it was killed; by a process of its own, which does not stay its parent."""
    if settings.ray_address is None and services.died(settings, cluster.SERVICE):
        _say(settings, "Ray ended and is being started again", serves=False)
        run_tool([*COMMAND, "head"], {})


def _watch_loop(settings: Settings) -> str:
    """Run one loop until it ends or its Ray does; returns which."""
    loop = subprocess.Popen([*COMMAND, "loop"], stdin=subprocess.DEVNULL)
    where, misses = cluster.address(settings), 0
    try:
        while (code := loop.poll()) is None:
            time.sleep(WATCH_SECONDS)
            where = where or cluster.address(settings)
            ours = settings.ray_address is not None or cluster.address(settings) == where
            misses = 0 if ours and _answers(where) else misses + 1
            if misses == MISSES:
                return f"Ray at {where} ended"
        return f"the reconcile loop ended with {code}"
    finally:
        loop.kill()
        loop.wait()


def _answers(where: str | None) -> bool:
    """Whether somebody listens at a Ray's address. One that is no host and port is left to Ray itself."""
    host, _, port = (where or "").removeprefix("ray://").rpartition(":")
    return not port.isdigit() or services.port_open(host, int(port))


def follow(settings: Settings) -> None:
    """Look every period whether Git and serving agree, and make them; ends when the Ray that it joined has ended."""
    connection, last, said = contextlib.ExitStack(), None, ""
    while True:
        status: Status | None = None
        try:
            params = read_params()
            if not ray.is_initialized():
                connection.enter_context(release_reconcile.joined(settings, params.release))
            status = release_reconcile.reconcile(settings, params.release, params.serving)
            reason = ""
        except Exception as error:
            reason = reason_of(error)
            _say(settings, reason, serves=True, aloud=reason != said)
            if reason != said and not isinstance(error, OvernightError):
                traceback.print_exc()
        live = [each.live_commit for each in status.environments] if status else last
        if live != last or reason != said:
            _record(settings, reason)
        last, said = live, reason
        if ray.is_initialized() and not cluster.answers():
            os._exit(1)  # Ray's own way out of a dead cluster waits, and may crash
        time.sleep(PERIOD_SECONDS)


def _say(settings: Settings, reason: str, *, serves: bool, aloud: bool = True) -> None:
    """Write a reason into the status and the log, as far as the disk lets us."""
    with contextlib.suppress(Exception):
        mark_stale(settings, reason, serves=serves)
    if aloud:
        with contextlib.suppress(OSError):
            print(reason, flush=True)


def _record(settings: Settings, reason: str) -> None:
    """Record a flow run in Prefect, if it answers; in a thread, for a server that takes its time."""

    def record() -> None:
        with contextlib.suppress(Exception), get_client(sync_client=True) as client:
            state: State[Any] = Failed(message=reason) if reason else Completed(message="serving is what Git asks for")
            client.create_flow_run(reconcile, name="reconcile", state=state)

    if prefect_api_url(settings) is not None:
        threading.Thread(target=record, daemon=True, name="record").start()


def main(what: str) -> None:
    """Supervise, or what the supervisor starts: the loop, or a head for it."""
    settings = read_settings()
    if what == "loop":
        services.die_with_parent()
        follow(settings)
    elif what == "head":
        cluster.start_head(settings)
    else:
        supervise(settings)


if __name__ == "__main__":
    main("".join(sys.argv[1:2]))
