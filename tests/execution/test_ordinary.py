"""What an ordinary Python can do, a program can do behind every wall; what it takes from its neighbours is nothing."""

import os
import signal
from pathlib import Path

import pytest

from components.execution import cgroup
from components.execution.runner import Runner
from components.execution.sandbox import Program, run_in, run_program, run_programs

# Parts of a text, each a program under its name.
ORDINARY = {
    name: source
    for part in Path(__file__).with_name("ordinary_programs.txt").read_text(encoding="utf-8").split("#: ")[1:]
    for name, _, source in (part.partition("\n"),)
}
# Those that need folders, devices or users which walls may lack.
OF_WALLS = [
    *("tempfile named", "sqlite disk", "getuser", "pwd", "home", "hostname", "dev stdin", "dev stdout", "inspect"),
    *("mp pool left", "mp spawn own fn", "mp process queue", "shared_memory left", "tcp localhost fixed port"),
    *("subprocess name", "processpool left", "proc self", "file"),
]
SECONDS = 20.0
MEMORY_BYTES = 2**29


def test_ordinary_programs_pass() -> None:
    programs = [Program(source=source) for source in ORDINARY.values()]
    outcomes = run_programs(programs, timeout_seconds=SECONDS, memory_bytes=MEMORY_BYTES, control=False)
    failed = {name: each for name, each in zip(ORDINARY, outcomes, strict=True) if not each.passed}
    assert failed == {}


@pytest.mark.parametrize("name", OF_WALLS)
def test_ordinary_programs_pass_behind_every_wall(runner: Runner, name: str) -> None:
    outcome = run_in(runner, Program(source=ORDINARY[name]), SECONDS, MEMORY_BYTES, control=False)
    assert outcome.passed, outcome


def test_only_the_folders_of_the_box_can_be_written(runner: Runner) -> None:
    source = (
        "import os\nleft = []\n"
        "for folder in ('/', '/dev', '/etc', '/usr/bin', '/packages', '/proc', os.path.dirname(os.__file__)):\n"
        "    try:\n        open(f'{folder}/left', 'w').close()\n        left.append(folder)\n"
        "    except OSError:\n        pass\nassert not left, left\n"
    )
    outcome = run_in(runner, Program(source=source), SECONDS, MEMORY_BYTES)
    assert outcome.passed, outcome


def test_shared_memory_counts_and_goes_with_its_program(runner: Runner) -> None:
    filling = (
        "for number in range(64):\n    with open(f'/dev/shm/{number}', 'wb') as file: file.write(bytes(8 * 2**20))\n"
    )
    assert not run_in(runner, Program(source=filling), SECONDS, 2**28).passed
    empty = Program(source="import os\nassert os.listdir('/dev/shm') == os.listdir() == []\n")
    assert run_in(runner, empty, SECONDS, MEMORY_BYTES).passed


def test_every_ending_is_an_ending(runner: Runner) -> None:
    """Each signal that ends a process, by its name or its number, and each way to leave."""
    deadly = sorted(set(range(1, 65)) - {*range(17, 24), 13, 25, 28, 32, 33})  # libc's own, and those without effect
    deadly = deadly if runner.backend != "bubblewrap" else [9, 34, 40, 64]  # each program has walls of its own there
    for number in deadly:
        source = (
            f"import os, signal\nsignal.signal({number}, 0) if {number} != 9 else 0\nos.kill(os.getpid(), {number})"
        )
        outcome = run_in(runner, Program(source=source), SECONDS, MEMORY_BYTES)
        names = {each.value: each.name for each in signal.Signals}
        assert (outcome.cause, outcome.detail) == ("killed", names.get(number, f"signal {number}"))
    for leaving, cause in {
        "import os\nos._exit(255)": "exited",
        "import sys\nsys.exit(3)": "exited",
        "import sys\nsys.exit('words')": "raised",
        "import os\nos.abort()": "killed",
        "import ctypes\nctypes.string_at(0)": "killed",
        "import os\nos.closerange(0, 9)\nassert False": "exited",
        "raise type('E', (BaseException,), {'__str__': lambda self: 1 / 0})()": "raised",
    }.items():
        assert run_in(runner, Program(source=leaving), SECONDS, MEMORY_BYTES).cause == cause, leaving


def test_the_exit_code_is_the_program_s() -> None:
    outcome = run_program("import sys\nsys.exit(3)")
    assert outcome.detail == "ended with code 3 before its last line"


@pytest.mark.parametrize(
    "program", ["import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "import time\ntime.sleep(99)"]
)
def test_a_program_that_does_nothing_is_out_of_time(program: str) -> None:
    assert run_program(program, timeout_seconds=0.5).cause == "timeout"


def test_neighbours_that_take_the_processors_change_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one processor and without control groups; the right program needs less than its limit, if it can run."""
    monkeypatch.setattr(cgroup, "_parents", lambda: ())
    spinners = (
        "import os\nfor _ in range(14):\n    if os.fork() == 0:\n        os.setsid()\n        break\nwhile True: pass\n"
    )
    right = "import time\nwhile time.process_time() < 0.4: pass\n"
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        outcomes = run_programs([spinners, right], timeout_seconds=1.0, num_workers=2, control=False)
    finally:
        os.sched_setaffinity(0, processors)
    assert [outcome.cause for outcome in outcomes] == ["timeout", "passed"]


def test_every_jail_has_a_share_of_the_processors_of_its_own(runner: Runner) -> None:
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    parents = [cgroup.MOUNT / "cpu" / path.lstrip("/") for _, names, path in lines if "cpu" in names.split(",")]
    if not any(os.access(each, os.W_OK) for each in parents):
        pytest.skip("no control group of v1 can share processors here")
    folders = [each for each in runner.group.folders if each.parent in parents]
    assert [(each / "cpu.shares").read_text() for each in folders] == ["1024\n"]
    assert str(runner.process.pid) in (folders[0] / "cgroup.procs").read_text().split()
