"""Hostile programs are contained and fail; honest ones pass. Each hostile one is tried behind every wall there is, and,
where it says so, without any, where it succeeds: a sandbox that did nothing would not pass."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.core.errors import OvernightError
from components.execution import cgroup, sandbox
from components.execution.probes import ESCAPES, filled
from components.execution.runner import (
    BACKENDS,
    OUTPUT_BYTES,
    Runner,
    environment,
    open_runner,
)
from components.execution.sandbox import Cause, Outcome, Program, run_in, run_program, run_programs

MEMORY_BYTES = 2**28

# Programs that end with code 0 when nothing holds them: what a judge that trusts exit codes calls passed.
UNBOUND: dict[str, tuple[str, set[Cause]]] = {
    "exit without cleanup": ("import os\nos._exit(0)", {"exited"}),
    "polite exit": ("import sys\nsys.exit(0)", {"exited"}),
    "words": ("print('passed'); print('ok'); raise SystemExit", {"exited"}),
    "memory": ("x = bytearray(4 * 10**8)", {"raised"}),
    "memory swallowed": ("try:\n x = bytearray(4 * 10**8)\nfinally:\n raise SystemExit(0)", {"exited"}),
    "processes": (
        "import os, time\nfor _ in range(60):\n if os.fork() == 0:\n  time.sleep(0.2)\n  os._exit(0)",
        {"raised"},
    ),
    "a gigabyte of output": ("import os\nfor _ in range(1024): os.write(1, b'a' * 2**20)", {"output"}),
    "a gigabyte of file": ("open('f', 'wb').truncate(2**30)", {"raised", "killed"}),
    "patched assertion": ("import os, sys\nsys.excepthook = lambda *_: os._exit(0)\nassert 1 + 1 == 3", {"raised"}),
    "orphan daemon": (
        "import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  time.sleep(3)\n os._exit(0)\n"
        "time.sleep(0.1)",
        {"left_processes"},
    ),
}
HOSTILE: dict[str, tuple[str, set[Cause]]] = {
    **UNBOUND,
    "infinite loop": ("while True: pass", {"timeout"}),
    "deaf to signals": (
        "import signal\nfor n in (2, 14, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        {"timeout"},
    ),
    "fork bomb": ("import os\nwhile True: os.fork()", {"raised", "timeout"}),
    "nonsense as verdict": ("import os\nos.write(3, b'passed' * 6)\nos._exit(0)", {"exited"}),
    "nonsense before the verdict": ("import os\nos.write(3, b'x')", {"exited"}),
    "kills its parent": ("import os\nos.kill(os.getppid(), 9)\nwhile True: pass", {"raised", "timeout", "killed"}),
    "kills whatever it may": ("import os\nos.kill(-1, 9)\nwhile True: pass", {"raised", "timeout", "killed"}),
    "other assertion": ("import builtins\nbuiltins.AssertionError = SystemExit\nassert 1 + 1 == 3", {"raised"}),
    "not Python": ("def (", {"raised"}),
    "null byte": ("x = 1\0", {"raised"}),
    "recursion": ("def f(): f()\nf()", {"raised"}),
    "open string at the end": ('assert False\n"""', {"raised"}),
}
FORGED = (
    "import os, sys\nframe = sys._getframe()\nwhile 'request' not in frame.f_locals: frame = frame.f_back\n"
    "os.write(3, frame.f_locals['request']['nonce'].encode())\n"
    "os.dup2(os.open('/dev/null', os.O_WRONLY), 3)\nos._exit(0)"
)
# A test that takes its time, and programs that are wrong and never let it run: each defines `check` in its place.
TEST = "def check(candidate):\n    assert candidate(1) == 2\n\nimport time\ntime.sleep(0.2)\ncheck(double)\n"
SKIPPING = {
    "a jump": (
        "import sys\ndef check(candidate): pass\ndef jump(frame, event, _):\n"
        "    if event == 'line' and frame.f_lineno == 10:\n"
        "        frame.f_lineno = max(line for *_, line in frame.f_code.co_lines())\n    return jump\n"
        "sys.settrace(jump)\nsys._getframe().f_trace = jump\ndouble = abs\n"
    ),
    "a thread": (
        "import threading\ndouble = abs\ndef replace():\n    while 'check' not in globals(): pass\n"
        "    globals()['check'] = lambda candidate: None\nthreading.Thread(target=replace).start()\n"
    ),
}


def run(runner: Runner, source: str, seconds: float = 5.0, memory_bytes: int = MEMORY_BYTES) -> Outcome:
    return run_in(runner, Program(source=source), seconds, memory_bytes)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_fails_and_leaves_nothing_behind(runner: Runner, name: str) -> None:
    source, causes = HOSTILE[name]
    before = _processes()
    outcome = run(runner, source, 0.5 if "timeout" in causes else 5.0)
    assert not outcome.passed
    assert outcome.cause in causes, outcome
    assert len(outcome.output) <= OUTPUT_BYTES
    alive = [line for line in _processes() - before if runner.root.name in line[1]]
    assert [line for line in alive if line[0] != str(runner.process.pid) and runner.backend != "bubblewrap"] == []
    assert run(runner, "x = 1").passed, "the jail goes on after it"


@pytest.mark.parametrize("name", UNBOUND)
def test_it_succeeds_without_a_sandbox(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", "-c", UNBOUND[name][0]]
    subprocess.run(command, check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)


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


@pytest.fixture
def probes(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Every escape, looking for a file, a port and a process of this test."""
    (tmp_path / "secret").write_text("secret")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as process,
    ):
        secret = str(tmp_path / "secret")
        yield filled(secret, [secret], server.getsockname()[1], process.pid, library=str(tmp_path))
        process.kill()


@pytest.mark.parametrize("name", ESCAPES)
def test_no_probe_escapes(runner: Runner, name: str, probes: dict[str, str]) -> None:
    source = probes[name] if name != "change a library" else ESCAPES[name].format(library=str(Path(os.__file__).parent))
    assert run(runner, source).cause == "raised"


@pytest.mark.parametrize("name", ESCAPES)
def test_every_probe_escapes_without_a_sandbox(name: str, probes: dict[str, str], tmp_path: Path) -> None:
    """The one that mounts does so in a mount namespace of its own, so that nothing stays."""
    if name in ("mount", "read passwords", "take another uid") and os.getuid() != 0:
        pytest.skip("nobody but root can do that")
    command = [sys.executable, "-I", "-S", "-c", probes[name]]
    done = subprocess.run([*(["unshare", "-m"] if name == "mount" else []), *command], cwd=tmp_path, check=False)
    if done.returncode and name in ("make a user namespace", "trace a process", "reach a hypervisor"):
        pytest.skip("this kernel refuses it to everybody")
    assert done.returncode == 0


def test_a_nonce_dug_out_of_memory_is_found_out(runner: Runner) -> None:
    forger = Program(source=FORGED)
    assert run_in(runner, forger, 5.0, MEMORY_BYTES, control=False).passed, "the nonce alone would believe it"
    assert run_in(runner, forger, 5.0, MEMORY_BYTES).cause == "forged"


@pytest.mark.parametrize("name", SKIPPING)
def test_a_program_that_skips_its_test_is_found_out(runner: Runner, name: str) -> None:
    forger = Program(source=SKIPPING[name], test=TEST)
    assert run_in(runner, forger, 5.0, MEMORY_BYTES, control=False).passed, "the nonce alone would believe it"
    assert run_in(runner, forger, 5.0, MEMORY_BYTES).cause == "forged"
    honest = Program(source="def double(x): return 2 * x\n", test=TEST)
    assert run_in(runner, honest, 5.0, MEMORY_BYTES).passed


def test_memory_is_summed_over_the_processes_of_a_program(tmp_path: Path) -> None:
    source = (
        "import os, time\nfor _ in range(4):\n if os.fork() == 0:\n  x = b'a' * (120 * 2**20)\n  time.sleep(0.5)\n"
        "  os._exit(0)\nassert [os.wait()[1] for _ in range(4)] == [0] * 4"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", source], check=True)
    with open_runner(sandbox.isolation()) as opened:
        if not any((parent / "memory.stat").exists() for parent in cgroup._parents()):
            pytest.skip("control groups cannot be written here")
        assert not run(opened, source).passed
        folders = opened.group.folders
    assert not any(folder.exists() for folder in folders)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Whether there is a control group is asked anew in the test, and again after it."""
    sandbox.sums_memory.cache_clear()
    yield
    sandbox.sums_memory.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_a_control_group_that_is_there_is_recorded() -> None:
    there = any((parent / "memory.stat").exists() for parent in cgroup._parents())
    assert sandbox.walls() == {"backend": sandbox.isolation(), "control_group": there}
    assert (sandbox.warning() is None) == there


@pytest.mark.usefixtures("fresh")
def test_a_control_group_that_cannot_be_made_is_recorded_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "_parents", lambda: ())
    assert sandbox.walls() == {"backend": sandbox.isolation(), "control_group": False}
    assert (sandbox.warning() or "").startswith("sandbox: no control group can be made here, so memory is limited for")


def test_walls_that_leak_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if one more escape were known, and succeeded."""
    monkeypatch.setitem(ESCAPES, "think", "assert 1 + 1 == 2")
    sandbox.isolation.cache_clear()
    with pytest.raises(OvernightError, match=r"escaped: AssertionError: think.*install bubblewrap"):
        sandbox.isolation()


def test_the_strongest_walls_are_chosen_and_named() -> None:
    sandbox.isolation.cache_clear()
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
        "assert os.listdir() == os.listdir('/dev/shm') == [] and sys.argv == ['program.py']\n"
        f"assert set(os.environ) == {set(environment())}\n"
        "assert {each for each in os.listdir('/proc') if each.isdigit()} <= set('12345'), os.listdir('/proc')\n"
        "assert not os.path.exists('/.proc/1')\n"
        "open('left', 'w').write('x')\nopen('/dev/shm/left', 'w').write('x')\n"
        "import builtins; builtins.left = 1\n"
    )
    assert [outcome.detail for outcome in run_programs([source, source], num_workers=1)] == ["", ""]


def test_nothing_of_ours_is_there_to_import(runner: Runner) -> None:
    source = (
        "import sys\nassert not [each for each in sys.modules if 'components' in each or 'walls' in each]\n"
        "assert not [each for each in sys.path if 'execution' in each or 'jail' in each]\n"
        "import components"
    )
    outcome = run(runner, source)
    assert (outcome.cause, outcome.detail) == ("raised", "ModuleNotFoundError: No module named 'components'")


def test_hashes_are_seeded_alike_in_every_jail() -> None:
    assert len({run_program("print(hash('seed'), {'a', 'b', 'c', 'd'})").output for _ in range(3)}) == 1


def test_the_cause_names_the_exception() -> None:
    outcome = run_program("def f(x):\n    return x\nassert f(1) == 2, 'one is not two'")
    assert (outcome.cause, outcome.detail) == ("raised", "AssertionError: one is not two")


def test_output_that_is_not_text_is_read_with_marks() -> None:
    outcome = run_program("import sys\nsys.stdout.buffer.write(b'\\xff\\xfe')")
    assert outcome.passed
    assert outcome.output == "\ufffd\ufffd"


def test_ten_megabytes_of_output_are_cut_and_no_failure() -> None:
    outcome = run_program("for _ in range(100): print('a' * 100_000)", timeout_seconds=20.0)
    assert outcome.passed
    assert len(outcome.output) == OUTPUT_BYTES


def test_a_failure_after_ten_megabytes_of_output_is_named() -> None:
    source = "import sys\nsys.stdout.buffer.write(b'\\xff' + b'a' * 10**7)\nassert False, 'too late'"
    outcome = run_program(source, timeout_seconds=20.0)
    assert (outcome.cause, outcome.detail) == ("raised", "AssertionError: too late")
    assert outcome.output.startswith("\ufffdaaa") and len(outcome.output) <= OUTPUT_BYTES


def test_a_server_that_was_killed_is_replaced() -> None:
    with open_runner(sandbox.isolation()) as opened:
        os.kill(opened.process.pid, signal.SIGKILL)
        run(opened, "x = 1", 0.1)  # may meet the server while it dies: no verdict then, and no error
        assert run(opened, "x = 1").passed
        os.kill(opened.process.pid, signal.SIGKILL)
        opened.process.wait()
        assert run(opened, "x = 1").passed


def test_groups_of_killed_owners_go_and_those_of_others_stay() -> None:
    source = (
        "import os, signal\nfrom components.execution.runner import Runner\nfrom components.execution import sandbox\n"
        "print(*Runner(sandbox.isolation()).group.folders, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    if not (folders := [Path(each) for each in done.stdout.split()]):
        pytest.skip("control groups cannot be written here")
    with open_runner(sandbox.isolation()) as first:
        for _ in range(100):  # until the kernel has ended the jail that lost its owner
            with open_runner(sandbox.isolation()):
                left = [folder for folder in folders if folder.exists()]
            if not left:
                break
        assert left == []
        assert all(folder.exists() for folder in first.group.folders)
