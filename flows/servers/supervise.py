"""Keep the reconcile loop running, and a Ray for it: `python -m flows.servers.supervise`.

Starts the loop as a child, again whenever it ends, with longer and longer pauses. Watches Ray, whose end can hold the
loop in a call for a minute: says so in the status, starts the head again where this workspace had started it, and then
a new loop. Light, since it lives as long as the stack.
Not covered: its own end, which the status's age shows and `overnight up` mends; a Ray that listens and hangs.
"""

import os
import subprocess
import sys
import time

from components.core.config import Settings, read_settings
from components.core.errors import one_line
from components.machine import cluster, services
from components.release.status import REASON_CHARACTERS, say
from flows.servers.subprocesses import run_tool

WATCH_SECONDS = 1.0
MISSES = 3
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
HEAD = "head"


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
            ended = one_line(error, REASON_CHARACTERS)
        lasted = time.monotonic() - began
        pause = SHORTEST_PAUSE_SECONDS if lasted > LONGEST_PAUSE_SECONDS else min(2 * pause, LONGEST_PAUSE_SECONDS)
        where = cluster.address(settings)
        say(settings, f"{ended}; starting again in {pause:.0f} s", serves=where is not None and _answers(where))
        time.sleep(pause)


def _revive_ray(settings: Settings) -> None:
    """Start this workspace's head again if it was killed; by a process of its own, which does not stay its parent."""
    if settings.ray_address is None and services.died(settings, cluster.SERVICE):
        say(settings, "Ray ended and is being started again", serves=False)
        run_tool([sys.executable, "-m", "flows.servers.supervise", HEAD], {})


def _watch_loop(settings: Settings) -> str:
    """Run one loop until it ends or its Ray does; returns which."""
    loop = subprocess.Popen([sys.executable, "-m", "flows.reconcile", str(os.getpid())], stdin=subprocess.DEVNULL)
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


def main() -> None:
    """Supervise; with the argument `head`, start a Ray head and end."""
    settings = read_settings()
    if sys.argv[1:] == [HEAD]:
        cluster.start_head(settings)
    else:
        supervise(settings)


if __name__ == "__main__":
    main()
