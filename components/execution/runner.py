"""Our end of a jail (jail.py): start it, hand it one program after another, and read what came of each."""

import functools
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.execution import cgroup, jail, toolchains, walls
from components.execution.filter import system_call_filter
from components.execution.languages import tools

Backend = Literal["namespaces", "user_namespaces", "bubblewrap"]

BACKENDS: tuple[Backend, ...] = ("namespaces", "user_namespaces", "bubblewrap")
JAIL, WALLS = Path(jail.__file__), Path(walls.__file__)  # run, not called: here for the constants that both ends know
OUTPUT_BYTES = 65_536
TAIL_BYTES = 4096
FLOOD_BYTES = 32 * 2**20
GRACE_SECONDS = 5.0
SERVER_BYTES = 64 * 2**20  # what the jail itself may need in the group that it shares with its program


class WallError(Exception):
    """The kernel refused a wall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How one program ended, as the watcher saw it. `code` is negative for a signal; `output`: both streams, cut.
    Not `reported`: the jail ended before its watcher could say anything."""

    reported: bool
    code: int
    timed_out: bool
    left_processes: bool
    compiled: bool
    flooded: bool
    verdict: bytes
    output: str
    seconds: float


@contextmanager
def open_runner(backend: Backend) -> "Iterator[Runner]":
    """A runner for as long as it is needed. Raises WallError when the kernel refuses."""
    opened = Runner(backend)
    try:
        yield opened
    finally:
        opened.close()


class Runner:
    """A walled-in server that runs one program at a time; in bubblewrap a new one for each program."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._start()

    def _start(self) -> None:
        self.root = tempfile.TemporaryDirectory(prefix="overnight-")
        self.control, theirs = socket.socketpair()
        with theirs:
            settings = {
                "view": toolchains.view(tools()).settings(),
                "environment": environment(),
                "refused_calls": system_call_filter().hex(),
            }
            descriptor = str(theirs.fileno())
            # -I would ignore the seed of the hashes; these four switches with no other variable are otherwise the same
            command = [str(toolchains.interpreter()), "-s", "-P", "-S", "-B"]
            arguments = [self.backend, self.root.name, descriptor, json.dumps(settings)]
            before = _bubblewrap(Path(self.root.name)) if self.backend == "bubblewrap" else []
            self.process = subprocess.Popen(
                [*before, *command, "/jail/jail.py" if before else str(JAIL), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "MALLOC_ARENA_MAX": "1"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.group = cgroup.Group(())
        answer = self.control.recv(4096).decode()
        if answer != "ready":
            self.close()
            raise WallError(answer or "the jail did not start")
        self.group = cgroup.make(Path(self.root.name).name, self.process.pid)

    def close(self) -> None:
        """Kill the server and, with it, everything in it."""
        self.control.close()
        self.process.kill()
        self.process.wait()
        self.group.remove()
        self.root.cleanup()

    def run(self, request: Mapping[str, Any], seconds: float) -> Ending:
        """Run one program (see jail.py); `seconds` is all that its steps may take where nothing else runs. A server
        that was killed, or that serves once, is replaced."""
        if self.process.poll() is not None:  # killed between two programs
            self.close()
            self._start()
        self.group.limit(memory_bytes=request["memory_bytes"] + SERVER_BYTES, processes=request["processes"] + 8)
        started = time.monotonic()
        pipes = [os.pipe() for _ in range(3)]
        for _, writing in pipes[:2]:  # /dev/stdout is opened anew, and the JVM knows no other way to the verdict's
            os.fchmod(writing, 0o622)
        reading = dict(zip(("output", "verdict", "report"), (ends[0] for ends in pipes), strict=True))
        try:
            self._send(json.dumps(request).encode(), [ends[1] for ends in pipes])
            self.control.settimeout(GRACE_SECONDS)
            texts, flooded = self._collect(reading, started + seconds * jail.STARVED_FACTOR + GRACE_SECONDS)
            alive = self._is_empty_again()
        except (BrokenPipeError, ConnectionResetError):  # killed just now
            texts, flooded, alive = dict.fromkeys(reading, b""), False, False
        finally:
            for descriptor in reading.values():
                os.close(descriptor)
        if not alive:
            self.close()
            self._start()
        late = time.monotonic() - started > seconds * jail.STARVED_FACTOR
        unanswered: dict[str, Any] = {"timed_out": late, "code": -signal.SIGKILL, "left": False}
        report: dict[str, Any] = json.loads(texts["report"]) if texts["report"] else unanswered
        return Ending(
            reported=bool(texts["report"]),
            code=report["code"],
            timed_out=report["timed_out"],
            left_processes=report["left"],
            compiled=report.get("compiled", True),
            flooded=flooded,
            verdict=texts["verdict"],
            output=texts["output"].decode(errors="replace"),
            seconds=time.monotonic() - started,
        )

    def _send(self, request: bytes, writing: list[int]) -> None:
        """Hand over the request, in a file that has no name, and the writing ends of the pipes."""
        try:
            with os.fdopen(os.memfd_create("request"), "w+b") as file:
                file.write(request)
                file.seek(0)
                socket.send_fds(self.control, [b"."], [file.fileno(), *writing])
        finally:
            for descriptor in writing:
                os.close(descriptor)

    def _is_empty_again(self) -> bool:
        """Wait for the server's word that nothing of the program runs any more; False when it gives none."""
        try:
            return self.control.recv(1) == b"."
        except OSError:
            return False

    def _collect(self, reading: dict[str, int], deadline: float) -> tuple[dict[str, bytes], bool]:
        """Read every pipe until the report is whole or the deadline has passed; keep the beginning and the end of what
        comes, and end a program that floods us."""
        texts = dict.fromkeys(reading, b"")
        written = 0
        with selectors.DefaultSelector() as selector:
            for name, descriptor in reading.items():
                selector.register(descriptor, selectors.EVENT_READ, name)
            waiting = True
            while ready := selector.select(max(0.0, deadline - time.monotonic()) if waiting else 0):
                for key, _ in ready:
                    chunk = os.read(key.fd, 65_536)
                    if not chunk:
                        selector.unregister(key.fd)
                        waiting = waiting and key.data != "report"
                    else:
                        texts[key.data] = _cut(texts[key.data] + chunk)
                    written += len(chunk)
                if written > FLOOD_BYTES:
                    self._stop()
                    return texts, True
        return texts, False

    def _stop(self) -> None:
        """End the program that runs; the server goes on, where it serves more than once."""
        if self.backend == "bubblewrap":
            self.process.kill()
        else:
            self.process.send_signal(signal.SIGTERM)


def _cut(text: bytes) -> bytes:
    """The beginning, and the end, which says how a program failed, of a text that is too long to keep."""
    if len(text) <= OUTPUT_BYTES:
        return text
    return text[: OUTPUT_BYTES - TAIL_BYTES] + text[-TAIL_BYTES:]


@functools.cache
def environment() -> dict[str, str]:
    """The environment of programs: what an ordinary one looks for, and nothing of ours."""
    return {
        "PATH": toolchains.search_path(tools()),
        "HOME": walls.WORK,
        "TMPDIR": walls.WORK,
        "USER": "user",
        "LOGNAME": "user",
        "LANG": "C.UTF-8",
        "PYTHONPATH": walls.PACKAGES,
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",  # numpy's threads count against a program's limits, as do the arenas of all
        "MALLOC_ARENA_MAX": "1",
    }


def _bubblewrap(folder: Path) -> list[str]:
    """The walls by bwrap, up to the command in them; `folder` is an empty one of the host, for the view's texts. Raises
    WallError where it is not installed."""
    path = shutil.which("bwrap")
    if path is None:
        raise WallError("bwrap not found")
    view = toolchains.view(tools())
    shown: list[tuple[str, ...]] = [("--ro-bind", each, each) for each in view.system]
    shown += [("--tmpfs", each) for each in view.hidden]
    shown += [("--ro-bind", source, target) for target, source in view.private.items()]
    shown += [("--tmpfs", each) for each in view.hidden_within]
    shown += [("--remount-ro", each) for each in (*view.hidden, *view.hidden_within)]
    for number, (target, text) in enumerate(view.texts.items()):
        (folder / str(number)).write_text(text)
        shown.append(("--ro-bind", str(folder / str(number)), target))
    shown += [("--symlink", target, each) for each, target in view.links.items()]
    return [
        *(path, "--unshare-all", "--unshare-user", "--uid", str(jail.NOBODY), "--gid", str(jail.NOBODY)),
        *("--cap-drop", "ALL", "--hostname", "box", "--die-with-parent", "--new-session"),
        *(argument for each in shown for argument in each),
        *("--ro-bind", str(JAIL), "/jail/jail.py", "--ro-bind", str(WALLS), "/jail/walls.py"),
        *("--dev", "/dev", "--proc", "/proc"),
        *("--size", str(2**24), "--perms", "1777", "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),
        *("--size", str(2**27), "--tmpfs", walls.BOX, "--remount-ro", "/"),
    ]
