"""Hostile programs are contained and fail; honest ones pass. Each hostile one is tried behind every wall there is."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.execution import sandbox
from components.execution.sandbox import BACKENDS, Backend, Cause, run_program, run_programs

MEMORY_BYTES = 2**28

HOSTILE: dict[str, tuple[str, set[Cause]]] = {
    "infinite loop": ("while True: pass", {"timeout"}),
    "sleep": ("import time\ntime.sleep(60)", {"timeout"}),
    "deaf to signals": (
        "import signal\nfor n in (2, 14, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        {"timeout"},
    ),
    "memory": ("x = bytearray(10**9)", {"raised"}),
    "memory swallowed": ("try:\n x = bytearray(10**9)\nexcept MemoryError:\n raise SystemExit(0)", {"exited"}),
    "fork bomb": ("import posix\nwhile True: posix.fork()", {"raised", "timeout"}),
    "flood of output": ("for _ in range(1000): print('a' * 100_000)", {"output"}),
    "large file": ("with open('f', 'wb') as f:\n for _ in range(1000): f.write(b'a' * 2**20)", {"raised", "killed"}),
    "exit without cleanup": ("import posix\nposix._exit(0)", {"exited"}),
    "polite exit": ("import sys\nsys.exit(0)", {"exited"}),
    "words": ("print('passed'); print('ok'); raise SystemExit", {"exited"}),
    "nonsense as verdict": ("import posix\nposix.write(3, b'passed' * 6)\nposix._exit(0)", {"exited"}),
    "nonsense before the verdict": ("import posix\nposix.write(3, b'x')", {"exited"}),
    "orphan daemon": (
        "import posix, time\nif posix.fork() == 0:\n posix.setsid()\n"
        " if posix.fork() == 0:\n  while True: pass\n posix._exit(0)\ntime.sleep(0.1)",
        {"left_processes"},
    ),
    "kills its parent": ("import posix\nposix.kill(posix.getppid(), 9)\nwhile True: pass", {"raised", "timeout"}),
    "kills whatever it may": ("import posix\nposix.kill(-1, 9)\nwhile True: pass", {"raised", "timeout", "killed"}),
    "wrong": ("assert 1 + 1 == 3, 'sum'", {"raised"}),
    "not Python": ("def (", {"raised"}),
    "null byte": ("x = 1\0", {"raised"}),
    "recursion": ("def f(): f()\nf()", {"raised"}),
    "open string at the end": ('assert False\n"""', {"raised"}),
}


@pytest.fixture(scope="module", params=BACKENDS)
def jail(request: pytest.FixtureRequest) -> Iterator[sandbox._Jail]:
    """A jail behind one kind of wall."""
    backend: Backend = request.param
    if backend == "namespaces" and os.getuid() != 0:
        pytest.skip("needs root")
    try:
        with sandbox._open_jail(backend) as opened:
            yield opened
    except sandbox._WallError as error:
        pytest.skip(f"this kernel refuses: {error}")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_fails_and_leaves_nothing_behind(jail: sandbox._Jail, name: str) -> None:
    source, causes = HOSTILE[name]
    if name == "kills whatever it may" and jail.backend == "limits" and os.getuid() != 0:
        pytest.skip("without walls and without a uid of its own it would kill this test")
    before, own = _processes(), jail.root.name
    started = time.monotonic()
    outcome = jail.run(source, 1.0, MEMORY_BYTES)
    assert not outcome.passed
    assert outcome.cause in causes, outcome
    assert time.monotonic() - started < 30.0, "whatever it does, it is ended"
    assert len(outcome.output) <= sandbox.OUTPUT_BYTES
    assert [line for line in _processes() - before if own in line[1]] == []
    assert jail.run("x = 1", 5.0, MEMORY_BYTES).passed, "the jail goes on after it"


def _processes() -> set[tuple[str, str]]:
    """Id and command line of every process of this machine."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.add((entry.name, (entry / "cmdline").read_text()))
            except OSError:
                continue
    return found


WALLED = {
    "a file of the host": "open({file!r}).read()",
    "a port of the host": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)",
    "a name server": "import socket\nsocket.getaddrinfo('example.org', 80)",
    "passwords": "open('/etc/shadow').read()",
    "the environment": "import os\nassert os.environ or len(open('/proc/self/environ').read()) > 60",
    "other processes": "import os\nassert [n for n in os.listdir('/proc') if n.isdigit()]",
    "a library of the host changed": "import os\nopen(os.path.dirname(os.__file__) + '/planted.py', 'w')",
    "the root changed": "open('/planted', 'w')",
    "a link out": "import os\nos.symlink({file!r}, 'link')\nopen('link').read()",
    "a mount": "import ctypes\nassert ctypes.CDLL(None).mount(b't', b'/box', b'tmpfs', 0, None) == 0",
}


HARMLESS_OUTSIDE = ("a file of the host", "a port of the host", "the environment", "other processes")


@pytest.mark.parametrize("name", WALLED)
def test_walls_hide_the_host(jail: sandbox._Jail, name: str, tmp_path: Path) -> None:
    if jail.backend == "limits":
        pytest.skip("limits hide nothing, and isolation() says so")
    file = tmp_path / "secret"
    file.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = WALLED[name].format(file=str(file), port=server.getsockname()[1])
        assert jail.run(source, 5.0, MEMORY_BYTES).cause == "raised"
        if name in HARMLESS_OUTSIDE:
            subprocess.run([sys.executable, "-c", source], check=True)  # the probe itself works


def test_the_strongest_walls_are_chosen_and_named() -> None:
    assert sandbox.isolation() in BACKENDS
    if os.getuid() != 0:
        assert sandbox.isolation() != "namespaces"


def test_honest_programs_pass_in_the_order_given_with_their_output() -> None:
    sources = [f"import math, re, typing\nprint(math.isqrt({n * n}))" for n in range(20)]
    outcomes = run_programs(sources, timeout_seconds=10.0)
    assert [outcome.passed for outcome in outcomes] == [True] * 20
    assert [outcome.output.strip() for outcome in outcomes] == [str(n) for n in range(20)]
    assert run_programs([]) == []


def test_a_program_is_the_main_module_of_a_fresh_directory_every_time() -> None:
    source = (
        "import os, sys\n"
        "assert __name__ == '__main__' and sys.modules['__main__'].__dict__ is globals()\n"
        "assert os.listdir() == [] and dict(os.environ) == {} and sys.argv == ['program.py']\n"
        "open('left', 'w').write('x')\n"
        "import builtins; builtins.left = 1\n"
    )
    assert [outcome.detail for outcome in run_programs([source, source], num_workers=1)] == ["", ""]


def test_hashes_are_seeded_alike_in_every_jail() -> None:
    assert len({run_program("print(hash('seed'), {'a', 'b', 'c', 'd'})").output for _ in range(3)}) == 1


def test_the_cause_names_the_exception() -> None:
    outcome = run_program("def f(x):\n    return x\nassert f(1) == 2, 'one is not two'")
    assert (outcome.cause, outcome.detail) == ("raised", "AssertionError: one is not two")


def test_output_that_is_not_text_is_read_with_marks() -> None:
    outcome = run_program("import sys\nsys.stdout.buffer.write(b'\\xff\\xfe')")
    assert outcome.passed
    assert outcome.output == "\ufffd\ufffd"
