"""A control group around a jail, where this machine lets us make one: memory, processes and processors of all in it.

Limits of single processes do not add up; a group's do, files in memory included. Groups share the processors equally,
however many processes and sessions each has. Covers cgroup v1 (a hierarchy for each controller) and v2 (below our own
group, when that hands controllers down). Where neither can be written, the limits of single processes remain, and
memory that a program shares with others or with itself (MAP_SHARED) has none.
"""

import contextlib
import functools
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
REMOVAL_SECONDS = 2.0
PREFIX = "overnight-jail-"
_LIMITS = {"memory": ("memory.limit_in_bytes", "memory.max"), "pids": ("pids.max", "pids.max")}
_SHARES = "cpu"  # a group's share is that of every other: what the kernel gives a new one


@dataclass(frozen=True, slots=True)
class Group:
    """Folders of one group, one for each hierarchy that it is in."""

    folders: tuple[Path, ...]

    @property
    def sums_memory(self) -> bool:
        """Whether the memory of all that runs in the group has one limit."""
        return any((folder / name).exists() for folder in self.folders for name in _LIMITS["memory"])

    def limit(self, *, memory_bytes: int, processes: int) -> None:
        """Limit what the group holds together. A kernel that refuses leaves the limit before."""
        for controller, value in (("memory", memory_bytes), ("pids", processes)):
            for folder in self.folders:
                for name in _LIMITS[controller]:
                    if (folder / name).exists():
                        with contextlib.suppress(OSError):
                            (folder / name).write_text(str(value))
                        break

    def remove(self) -> None:
        """Kill what is left in the group and remove it, as soon as the kernel has let go of what was killed."""
        deadline = time.monotonic() + REMOVAL_SECONDS
        for folder in self.folders:
            while folder.exists() and time.monotonic() < deadline:
                for process in (folder / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(process), signal.SIGKILL)
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.002)


def make(name: str, process: int) -> Group:
    """A group with one process, and all that it has started or will, in it; without folders where none can be made.

    Groups that killed owners left behind are removed on the way: their names say whose they were.
    """
    made = []
    for parent in _parents():
        for left in parent.glob(f"{PREFIX}*"):
            if not Path("/proc", left.name.removeprefix(PREFIX).split("-")[0]).exists():
                with contextlib.suppress(OSError):
                    left.rmdir()
        folder = parent / f"{PREFIX}{os.getpid()}-{name}"
        try:
            folder.mkdir()
            for each in _family(process):
                (folder / "cgroup.procs").write_text(each)
        except OSError:
            with contextlib.suppress(OSError):
                folder.rmdir()
            continue
        made.append(folder)
    return Group(tuple(made))


def _family(process: int) -> list[str]:
    """A process and its descendants."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [str(process), *(each for child in children for each in _family(int(child)))]


@functools.cache
def _parents() -> tuple[Path, ...]:
    """Groups of this process in which we may make others that limit memory or processes, or share processors."""
    parents = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if controllers else ("",):
            parent = MOUNT / controller / path.lstrip("/")
            handed_down = controller in (*_LIMITS, _SHARES) if controller else _hands_down(parent)
            if handed_down and parent.is_dir() and os.access(parent, os.W_OK):
                parents.append(parent)
    return tuple(parents)


def _hands_down(parent: Path) -> bool:
    """Whether a group of v2 gives its children the controllers that we need."""
    try:
        return set(_LIMITS) <= set((parent / "cgroup.subtree_control").read_text().split())
    except OSError:
        return False
