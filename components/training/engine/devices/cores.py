"""Keep every compute thread of a process on a core of its own while it trains. Standard library only; Linux, OpenMP.

A step of a small model is some hundred parallel regions of 0.1 to 2 ms, and at the end of each all threads meet. Those
that sleep until the next region wake up late; those that spin for a moment (SPINNING) fall to a tenth once anything
else runs, because the kernel then puts two of them on one core, where each spins for the other. On cores of their own
they keep their speed. Tokens/s of 4 x 128, two cores of a virtual machine, medians of runs of 30 steps:

                                    sleeping            spinning            spinning, on own cores
    alone                           14,100 to 15,300    15,800 to 21,900    17,100 to 23,500
    beside 30 ms of work in 130     12,000 to 12,800    1,000 to 13,400     16,600 to 20,600
    beside a process always busy    4,700 to 10,400     5,100 to 8,200      8,700 to 9,300

Where one core is crowded and another is not, sleeping threads gather on the free one and pinned ones wait for each
other: beside ten busy processes on one of two cores they had 0.20 to 0.37 of the sleeping ones' speed (three pairs).

Not covered: several workers on one node, which do not know of each other's cores and keep the kernel's choice.
"""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Threads that wait for the next parallel region sleep, unless each has a core of its own (`pinned`): then they spin for
# some 0.3 ms first, longer than what lies between two regions of a step.
SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE"}
SPINNING = SLEEPING | {"GOMP_SPINCOUNT": "100000"}
LIBRARIES = ("libgomp", "libiomp5", "libomp")
MAPS = Path("/proc/self/maps")
ALL_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()


def has_machine(workers: int, device: str) -> bool:
    """Whether a process computes on all cores of its machine: the only worker, and on no GPU."""
    return workers == 1 and device == "cpu"


def waiting(workers: int, device: str) -> dict[str, str]:
    """How the threads of such a process wait: of its environment before OpenMP, which comes with torch, is loaded."""
    return SPINNING if has_machine(workers, device) else SLEEPING


@contextmanager
def pinned(threads: int) -> Iterator[bool]:
    """Within, the calling thread and the others of its team of `threads` are on cores of their own; whether they are.

    They are not where there are fewer cores than threads, or no OpenMP. A thread that is begun within stays on its
    maker's core unless it calls `free`.
    """
    team = team_of(threads) if 1 < threads <= len(ALL_CORES) and MAPS.exists() else []
    own = len(set(team)) == threads
    for thread, core in zip(team if own else (), sorted(ALL_CORES), strict=False):
        os.sched_setaffinity(thread, {core})
    try:
        yield own
    finally:
        for thread in team:
            os.sched_setaffinity(thread, ALL_CORES)


def free() -> None:
    """Let the calling thread run on every core that the process was given."""
    if ALL_CORES:
        os.sched_setaffinity(0, ALL_CORES)


def team_of(threads: int) -> list[int]:
    """Ids of the threads that compute the calling thread's parallel regions, itself the first; [] without OpenMP.

    Each says so itself, in a parallel region: OpenMP keeps the threads of a team from one region to the next.
    """
    loaded = {line.split(maxsplit=5)[-1] for line in MAPS.read_text().splitlines() if "/lib" in line}
    paths = [path for path in sorted(loaded) if Path(path).name.startswith(LIBRARIES)]
    paths = [path for path in paths if "torch" in path] or paths  # other packages bring an OpenMP of their own
    if len(paths) != 1:
        return []
    ids: list[int] = []
    say = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: ids.append(threading.get_native_id()))
    ctypes.CDLL(paths[0]).GOMP_parallel(say, None, ctypes.c_uint(threads), ctypes.c_uint(0))
    return sorted(ids, key=lambda each: each != threading.get_native_id())
