"""Run programs that nobody trusts, and decide outside of them whether they passed.

A program passes when two things hold. Its last line was executed: only then is a random nonce written on a pipe of its
own, so `os._exit(0)`, a killed test or the printed word "passed" do not pass. And its control fails: the same program,
with another nonce and one false assertion: in Python one of its test's own, turned round (control.py), elsewhere one
after its last line. A program that digs the nonce out of its own memory, that disarms assertions or, in Python, skips
them passes its control as well, and so is found out without a list of tricks.

Covers: endless loops, memory, fork bombs, floods of output, large files, orphans (all killed and counted as failed).
No network, no file of the host but toolchains, read-only, no process of the host to see or to signal; no privileges, a
uid of its own when started by root, system calls filtered (filter.py), memory and processes of a program summed where
control groups can be written (cgroup.py). Hashes are seeded alike in every run. A program's time is what its processes
run, and what they wait for anything but a processor: neighbours take none of it (jail.py).
Not covered: a candidate that looks into the text of its own control and behaves there; one that makes every comparison
true, as any test in its own process allows; one that skips some assertions and not the control's; one that skips all in
a language beside Python, or in a program whose test was not told apart; faults of the kernel; Python packages beside
the standard library and numpy.
"""

import functools
import os
import queue
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from components.core.errors import OvernightError
from components.execution import toolchains
from components.execution.languages import language, missing, tools
from components.execution.probes import all_at_once
from components.execution.runner import BACKENDS, FLOOD_BYTES, Backend, Ending, Runner, WallError, open_runner

Cause = Literal[
    "passed", "raised", "exited", "killed", "timeout", "output", "left_processes", "not_compiled", "forged", "not_run"
]

FILE_BYTES = 2**24
COMPILED_FILE_BYTES = 2**27
COMPILE_SECONDS = 60.0
PROCESSES = 40
PROBE_SECONDS = 30.0
PROBE_BYTES = 2**30
TELLING = re.compile(r"^\w*(?:Error|Exception)\b|: error|^error|[Aa]ssertion.* failed|panicked at|--- FAIL|: line \d+:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program and the test that follows it, in one of `languages.LANGUAGES`. Without `test` the source has its own,
    which a control cannot tell from the program."""

    source: str
    test: str = ""
    language: str = "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one program. `output`: what it wrote on both streams, cut; `detail`: one line, its or ours."""

    passed: bool
    cause: Cause
    detail: str
    output: str
    seconds: float


def run_program(source: str | Program, *, timeout_seconds: float = 5.0, memory_bytes: int = 2**29) -> Outcome:
    """Run one program to its end or its limits. Raises OvernightError when no wall can be built here."""
    return run_programs([source], timeout_seconds=timeout_seconds, memory_bytes=memory_bytes, num_workers=1)[0]


def run_programs(
    programs: Sequence[str | Program],
    *,
    timeout_seconds: float = 5.0,
    memory_bytes: int = 2**29,
    num_workers: int | None = None,
    control: bool = True,
) -> list[Outcome]:
    """Run many programs (a string is Python), `num_workers` at a time (one per core when None), outcomes in their
    order. Without `control` those that pass are believed at their nonce.

    Raises OvernightError when no wall can be built here, ValueError for a language that is not in the table.
    """
    backend = isolation()
    count = min(num_workers or len(os.sched_getaffinity(0)), len(programs))
    if count == 0:
        return []
    with ExitStack() as stack:
        runners: queue.SimpleQueue[Runner] = queue.SimpleQueue()
        for _ in range(count):
            runners.put(stack.enter_context(open_runner(backend)))

        def run(program: str | Program) -> Outcome:
            free = runners.get()
            try:
                each = Program(source=program) if isinstance(program, str) else program
                return run_in(free, each, timeout_seconds, memory_bytes, control=control)
            finally:
                runners.put(free)

        with ThreadPoolExecutor(max_workers=count) as pool:
            return list(pool.map(run, programs))


def run_in(
    runner: Runner, program: Program, timeout_seconds: float, memory_bytes: int, *, control: bool = True
) -> Outcome:
    """Run one program in a jail that is open, and its control when it passes."""
    if reason := missing(program.language) or _broken(runner.backend, program.language):
        return Outcome(passed=False, cause="not_run", detail=reason, output="", seconds=0.0)
    first = _run_once(runner, program, timeout_seconds, memory_bytes, control=False)
    if not (first.passed and control):
        return first
    second = _run_once(runner, program, timeout_seconds, memory_bytes, control=True)
    if not second.passed:
        return first
    detail = "passed even with a false assertion"
    return Outcome(passed=False, cause="forged", detail=detail, output=first.output, seconds=first.seconds)


def _run_once(runner: Runner, program: Program, timeout_seconds: float, memory_bytes: int, *, control: bool) -> Outcome:
    definition, nonce = language(program.language), secrets.token_hex(16)
    files = definition.files(program.source, program.test, nonce, control)
    compiled = definition.compile is not None
    request: dict[str, Any] = {
        "timeout_seconds": timeout_seconds,
        "memory_bytes": memory_bytes if definition.name == "python" else max(memory_bytes, definition.memory_bytes),
        "file_bytes": COMPILED_FILE_BYTES if compiled else FILE_BYTES,
        "processes": PROCESSES + (definition.threads if definition.run else 0),
    }
    if definition.run:
        request |= {
            "files": files,
            "run": definition.run,
            "compile": definition.compile,
            "compile_seconds": COMPILE_SECONDS,
        }
    else:
        request |= {"source": files[definition.file_name], "shown_source": program.source, "nonce": nonce}
    seconds = timeout_seconds + (COMPILE_SECONDS if compiled else 0.0)
    ending = runner.run(request, seconds)
    if not (ending.reported or ending.flooded or ending.timed_out):  # what comes from outside does not come twice
        ending = runner.run(request, seconds)
    cause, detail = _judge(ending, nonce, _telling(ending.output, definition.name))
    return Outcome(
        passed=cause == "passed", cause=cause, detail=detail[:300], output=ending.output, seconds=ending.seconds
    )


def _telling(output: str, language: str) -> str:
    """The line of a program's output that says what went wrong; Python says it last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or [""]
    return next((line for line in lines if TELLING.search(line)), lines[-1]) if language != "python" else lines[-1]


def _judge(ending: Ending, nonce: str, telling: str) -> tuple[Cause, str]:
    """The verdict, from what the watcher reported and whether the nonce came, whole and alone."""
    if ending.flooded:
        return "output", f"wrote more than {FLOOD_BYTES} bytes"
    if ending.timed_out:
        return "timeout", f"stopped after {ending.seconds:.1f} seconds"
    if not ending.compiled:
        return "not_compiled", telling
    if ending.code < 0:
        return "killed", ": ".join(filter(None, (_signal_name(-ending.code), telling)))
    if ending.code > 0 and telling:
        return "raised", telling
    if ending.code != 0 or ending.verdict != nonce.encode():
        return "exited", f"ended with code {ending.code} before its last line"
    if ending.left_processes:
        return "left_processes", "reached its last line and left processes running"
    return "passed", ""


def _signal_name(number: int) -> str:
    """A signal by its name; those of real time have none of their own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@functools.cache
def _broken(backend: Backend, name: str) -> str | None:
    """Why a language that is installed does not run behind these walls, as its trivial program shows; None when it
    does."""
    if name == "python":  # the server itself
        return None
    with open_runner(backend) as opened:
        outcome = _run_once(opened, _probe(name, ""), PROBE_SECONDS, PROBE_BYTES, control=False)
    return None if outcome.passed else f"{name} does not run in the sandbox: {outcome.cause}: {outcome.detail}"


def unmet(name: str, texts: Sequence[str]) -> str | None:
    """Why no program that holds these texts of a suite can be judged here: the language has no toolchain, or what the
    texts import is not there. None when all is. Raises as `run_programs` does."""
    lines = sorted({line for text in texts for line in language(name).imports(text)})
    return missing(name) or (_absent(name, tuple(lines)) if lines else None)


@functools.cache
def _absent(name: str, lines: tuple[str, ...]) -> str | None:
    """What the first of these lines of imports that fails when it stands alone says; None when all work."""
    together = "\n".join(lines)
    (outcome,) = _probed(name, (together,))
    if outcome.passed or len(lines) == 1:
        failed = [] if outcome.passed else [(together, outcome)]
    else:
        failed = [(line, each) for line, each in zip(lines, _probed(name, lines), strict=True) if not each.passed]
    if not failed:
        return None
    line, outcome = failed[0]
    if outcome.cause == "not_run":
        return outcome.detail
    said = f"its test needs `{line}`, which fails in the sandbox: {outcome.detail}"
    return f"{said}; programs see {language(name).offers}"


def _probed(name: str, lines: Sequence[str]) -> list[Outcome]:
    """What becomes of lines of imports alone."""
    probes = [_probe(name, line) for line in lines]
    return run_programs(probes, timeout_seconds=PROBE_SECONDS, memory_bytes=PROBE_BYTES, num_workers=1, control=False)


def _probe(name: str, line: str) -> Program:
    return Program(source=f"{line}\n{language(name).trivial}", language=name)


@functools.cache
def isolation() -> Backend:
    """The strongest walls that this machine lets us build, tried once per process, strongest first.

    namespaces (as root), user_namespaces (as anybody), bubblewrap (where only it may make namespaces). Each is believed
    only after every escape that we know of has failed in it. Raises OvernightError, with what to do, when none holds.
    """
    if reason := toolchains.python().refused:
        raise OvernightError(f"sandbox: no program can be run safely here ({reason}); use a Python of its own folder")
    reasons = []
    for backend in BACKENDS[0 if os.getuid() == 0 else 1 :]:
        try:
            with _bait() as bait, open_runner(backend) as opened:
                outcome = run_in(opened, Program(source=bait), 10.0, 2**29)
        except WallError as error:
            reasons.append(f"{backend}: {error}")
            continue
        if outcome.passed:
            return backend
        reasons.append(f"{backend}: escaped: {outcome.detail}")
    raise OvernightError(
        f"sandbox: no program can be run safely here ({'; '.join(reasons)}); install bubblewrap, and allow user "
        "namespaces (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0; in a container "
        "start it with --security-opt seccomp=unconfined or as privileged)"
    )


@functools.cache
def sums_memory() -> bool:
    """Whether a control group holds a program's memory together here, as seen on a jail that is opened for it."""
    with open_runner(isolation()) as opened:
        return opened.group.sums_memory


def walls() -> dict[str, str | bool]:
    """What held the programs of this process, for the record of a run."""
    return {"backend": isolation(), "control_group": sums_memory()}


def warning() -> str | None:
    """One line for whoever watches, where programs may hold more memory than their limit says; None elsewhere."""
    if sums_memory():
        return None
    return (
        "sandbox: no control group can be made here, so memory is limited for each process and shared memory is not; "
        "let this user write to a group below /sys/fs/cgroup that hands down memory and pids"
    )


@contextmanager
def _key(folder: Path) -> Iterator[list[IO[bytes]]]:
    """A file as a user's key would be, in a folder, as long as it is needed; none where no file can be made."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".overnight-key-") as file:
            yield [file]
    except OSError:
        yield []


@contextmanager
def _bait() -> Iterator[str]:
    """A program that fails if it reaches a file, a port or a process of ours, or keys where users have theirs."""
    with (
        ExitStack() as stack,
        tempfile.NamedTemporaryFile() as marker,
        socket.create_server(("127.0.0.1", 0)) as server,
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process,
    ):
        keys = [key for folder in toolchains.baits(tools()) for key in stack.enter_context(_key(folder))]
        for file in (marker, *keys):
            file.write(b"secret")
            file.flush()
        yield all_at_once(marker.name, [key.name for key in keys], server.getsockname()[1], process.pid)
        assert process.stdin is not None
        process.kill()
