"""Run Python programs that nobody trusts, and decide outside of them whether they passed.

A program passes when its last line was executed: only then does the runner, in the candidate's process, write a random
nonce on an inherited pipe. `os._exit(0)`, `sys.exit()`, a killed test or the printed word "passed" do not write it.

Covers: infinite loops, memory, fork bombs, floods of output, large files, orphans (all killed and counted as failed);
the environment is empty, the directory fresh, and hashes are seeded alike in every run. Where namespaces can be made:
no network, no file of the host but its libraries, read-only, no process of the host to see or to signal; a uid of its
own when started by root, no capabilities otherwise. Where they cannot, `isolation()` says "limits": limits alone, and a
uid of its own when started by root.
Not covered: a candidate written against this very runner (it shares an interpreter with it and can search memory for
the nonce), system-call filters, faults of the kernel, memory summed over processes (the limit is for each of at most
16), packages beside the standard library, languages beside Python.
"""

import functools
import json
import os
import queue
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.core.errors import OvernightError
from components.execution import jail

Backend = Literal["namespaces", "user_namespaces", "limits"]
Cause = Literal["passed", "raised", "exited", "killed", "timeout", "output", "left_processes"]

BACKENDS: tuple[Backend, ...] = ("namespaces", "user_namespaces", "limits")
JAIL = Path(jail.__file__)  # run, not called; imported so that it counts among the code that results depend on
OUTPUT_BYTES = 65_536
FILE_BYTES = 16 * 2**20
PROCESSES = 16
GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one program. `output`: what it wrote on both streams, cut; `detail`: one line, its or ours."""

    passed: bool
    cause: Cause
    detail: str
    output: str
    seconds: float


def run_program(source: str, *, timeout_seconds: float = 5.0, memory_bytes: int = 2**29) -> Outcome:
    """Run one program to its end or its limits. Raises OvernightError when no wall can be built here."""
    return run_programs([source], timeout_seconds=timeout_seconds, memory_bytes=memory_bytes, num_workers=1)[0]


def run_programs(
    sources: Sequence[str], *, timeout_seconds: float = 5.0, memory_bytes: int = 2**29, num_workers: int | None = None
) -> list[Outcome]:
    """Run many programs, `num_workers` at a time (one per core when None), outcomes in the order of the programs.

    Raises OvernightError when no wall can be built here.
    """
    backend = isolation()
    count = min(num_workers or len(os.sched_getaffinity(0)), len(sources))
    if count == 0:
        return []
    with ExitStack() as stack:
        jails: queue.SimpleQueue[_Jail] = queue.SimpleQueue()
        for _ in range(count):
            jails.put(stack.enter_context(_open_jail(backend)))

        def run(source: str) -> Outcome:
            free = jails.get()
            try:
                return free.run(source, timeout_seconds, memory_bytes)
            finally:
                jails.put(free)

        with ThreadPoolExecutor(max_workers=count) as pool:
            return list(pool.map(run, sources))


@functools.cache
def isolation() -> Backend:
    """The strongest walls that this machine lets us build, tried once per process, strongest first.

    namespaces (as root), user_namespaces (as anybody), limits (no wall around network and files). Namespaces are
    believed only after a program in them has failed to find a file and a listening port of ours.
    """
    reasons = []
    for backend in BACKENDS[0 if os.getuid() == 0 else 1 :]:
        try:
            with _bait() as bait, _open_jail(backend) as opened:
                outcome = opened.run("import math" if backend == "limits" else bait, 10.0, 2**29)
        except _WallError as error:
            reasons.append(f"{backend}: {error}")
            continue
        if outcome.passed:
            return backend
        reasons.append(f"{backend}: {outcome.detail}")
    raise OvernightError(
        f"sandbox: no program can be run safely here ({'; '.join(reasons)}); allow user namespaces, or give root a "
        f"Python that other users can read"
    )


@contextmanager
def _bait() -> Iterator[str]:
    """A program that fails if it sees a file of ours, reads the host's secrets or reaches a port of ours."""
    with tempfile.NamedTemporaryFile() as marker, socket.create_server(("127.0.0.1", 0)) as server:
        yield (
            "import math, os, socket\n"
            f"assert not os.path.exists({marker.name!r}), 'a file of the host was seen'\n"
            "assert not os.access('/etc/shadow', os.R_OK), 'secrets of the host were readable'\n"
            f"assert socket.socket().connect_ex(('127.0.0.1', {server.getsockname()[1]})), 'the network was reached'\n"
        )


class _WallError(Exception):
    """The kernel refused a wall."""


@contextmanager
def _open_jail(backend: Backend) -> "Iterator[_Jail]":
    """A jail for as long as it is needed."""
    opened = _Jail(backend)
    try:
        yield opened
    finally:
        opened.close()


class _Jail:
    """A walled-in server (jail.py) that runs one program at a time, and our ends of its pipes."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._start()

    def _start(self) -> None:
        self.root = tempfile.TemporaryDirectory(prefix="overnight-")
        Path(self.root.name).chmod(0o711)  # in `limits` the candidate's uid must reach the directory below
        self.control, theirs = socket.socketpair()
        with theirs:
            arguments = [self.backend, self.root.name, str(theirs.fileno())]
            # -I would ignore the seed of the hashes; these four switches with no other variable are otherwise the same
            self.process = subprocess.Popen(
                [_interpreter(), "-s", "-P", "-S", "-B", str(JAIL), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        answer = self.control.recv(4096).decode()
        if answer != "ready":
            self.close()
            raise _WallError(answer or "the jail did not start")

    def close(self) -> None:
        """Kill the server and, with it, everything in it."""
        self.control.close()
        self.process.kill()
        self.process.wait()
        self.root.cleanup()

    def run(self, source: str, timeout_seconds: float, memory_bytes: int) -> Outcome:
        """Run one program; a server that a candidate managed to kill is replaced, and the candidate failed."""
        request = {
            "source": source,
            "nonce": secrets.token_hex(16),
            "timeout_seconds": timeout_seconds,
            "memory_bytes": memory_bytes,
            "file_bytes": FILE_BYTES,
            "processes": PROCESSES,
        }
        started = time.monotonic()
        pipes = [os.pipe() for _ in range(3)]
        reading = dict(zip(("output", "verdict", "report"), (ends[0] for ends in pipes), strict=True))
        try:
            self._send(json.dumps(request).encode(), [ends[1] for ends in pipes])
            self.control.settimeout(GRACE_SECONDS)
            texts, flooded = self._collect(reading, started + timeout_seconds + GRACE_SECONDS)
            alive = self._is_empty_again()
        finally:
            for descriptor in reading.values():
                os.close(descriptor)
        if not alive:
            self.close()
            self._start()
        return _judge(texts, flooded, str(request["nonce"]), time.monotonic() - started)

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
        """Read every pipe until the report is whole or the deadline has passed; end a program that floods us."""
        texts = dict.fromkeys(reading, b"")
        flooded = False
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
                    elif len(texts[key.data]) <= OUTPUT_BYTES:
                        texts[key.data] += chunk
                if len(texts["output"]) > OUTPUT_BYTES and not flooded:
                    flooded = True
                    self.process.send_signal(signal.SIGTERM)
        return texts, flooded


@functools.cache
def _interpreter() -> str:
    """The interpreter beneath the virtual environment: candidates see the standard library only."""
    path = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return str(path) if path.exists() else sys.executable


def _judge(texts: dict[str, bytes], flooded: bool, nonce: str, seconds: float) -> Outcome:
    """The verdict, from what the watcher reported and whether the nonce came, whole and alone."""
    unanswered = {"timed_out": not flooded, "code": -signal.SIGKILL, "left": False}
    report = json.loads(texts["report"]) if texts["report"] else unanswered
    output = texts["output"][:OUTPUT_BYTES].decode(errors="replace")
    code, lines = report["code"], output.rstrip().splitlines()
    cause: Cause
    if flooded:
        cause, detail = "output", f"wrote more than {OUTPUT_BYTES} bytes"
    elif report["timed_out"]:
        cause, detail = "timeout", f"stopped after {seconds:.1f} seconds"
    elif code < 0:
        cause, detail = "killed", signal.Signals(-code).name
    elif code == 1 and lines:
        cause, detail = "raised", lines[-1]
    elif code != 0 or texts["verdict"] != nonce.encode():
        cause, detail = "exited", f"ended with code {code} before its last line"
    elif report["left"]:
        cause, detail = "left_processes", "reached its last line and left processes running"
    else:
        cause, detail = "passed", ""
    return Outcome(passed=cause == "passed", cause=cause, detail=detail[:300], output=output, seconds=seconds)
