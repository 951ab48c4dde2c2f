"""Suites of programs: the format, its mistakes, and what the sandbox says of right and wrong solutions."""

import gzip
import json
from pathlib import Path

import pytest

from components.core.closure import ROOT
from components.core.config import read_settings
from components.core.errors import DataError
from components.evaluation.config import BUILT_IN_SUITES
from components.evaluation.execute import execute
from components.evaluation.functional import Suite, built_in_suite, read_suite, run_solutions

TASK = {
    "task_id": "t/0",
    "prompt": 'def one():\n    """Return 1."""\n',
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}


def run(suite: Suite, solutions: dict[str, str]) -> dict[str, bool]:
    pairs = [(task, solutions[task.task_id]) for task in suite.tasks]
    outcomes = run_solutions(pairs, timeout_seconds=5.0, memory_bytes=2**29)
    return {task.task_id: outcome.passed for (task, _), outcome in zip(pairs, outcomes, strict=True)}


@pytest.mark.parametrize("name", BUILT_IN_SUITES)
def test_our_suite_tells_right_from_wrong(name: str) -> None:
    """Every canonical solution passes; no task passes with nothing, nor with another task's solution."""
    suite = built_in_suite(name)
    canonical = {task.task_id: task.canonical_solution for task in suite.tasks}
    assert all(run(suite, canonical).values())
    assert not any(run(suite, dict.fromkeys(canonical, "    pass\n")).values())
    shifted = dict(zip(canonical, [*list(canonical.values())[1:], "    return 0\n"], strict=True))
    assert not any(run(suite, shifted).values())
    assert all(task.prompt.endswith('"""\n') and task.canonical_solution.count("\n") == 1 for task in suite.tasks)


def test_humaneval_is_read_and_its_solutions_pass() -> None:
    path = ROOT / read_settings().benchmarks / "HumanEval.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is absent: set OVERNIGHT_BENCHMARKS to the folder that holds it")
    suite = read_suite(path)
    assert (suite.name, len(suite.tasks)) == ("HumanEval", 164)
    passed = run(suite, {task.task_id: task.canonical_solution for task in suite.tasks})
    assert [task_id for task_id, good in passed.items() if not good] == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"suite\.jsonl: line 3: not JSON"),
        ("[1]", r"line 3: the line is '\[1\]'"),
        (json.dumps({**TASK, "task_id": "t/0"}), r"task_id 't/0' is there twice"),
        (
            json.dumps({key: TASK[key] for key in TASK if key != "test"} | {"task_id": "x"}),
            r"line 3: test: field required",
        ),
        (json.dumps({**TASK, "entry_point": "os.system"}), r"line 3: entry_point is 'os\.system'"),
        (json.dumps({**TASK, "prompt": 7}), r"line 3: prompt is '?7'?: .*string"),
        (json.dumps({**TASK, "test": "assert True"}), r"line 3: test is 'assert True'"),
    ],
)
def test_a_mistake_names_file_line_and_field(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "suite.jsonl"
    path.write_text(f"{json.dumps(TASK)}\n\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_suite(path)


def test_a_gzipped_suite_is_the_same_suite(tmp_path: Path) -> None:
    content = json.dumps({**TASK, "unknown": 1}).encode()
    (tmp_path / "s.jsonl").write_bytes(content)
    (tmp_path / "s.jsonl.gz").write_bytes(gzip.compress(content))
    plain, zipped = read_suite(tmp_path / "s.jsonl"), read_suite(tmp_path / "s.jsonl.gz")
    assert (plain.name, plain.tasks) == (zipped.name, zipped.tasks)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"\n", "no task in it"),
        ("a.jsonl", b"\xff", "cannot be read as JSON lines"),
        ("a.jsonl.gz", b"no gzip", "cannot be read as JSON lines"),
        ("a.jsonl.gz", gzip.compress(b"{}")[:-4], "cannot be read as JSON lines"),
    ],
)
def test_an_unreadable_file(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_suite(tmp_path / name)
    with pytest.raises(DataError, match="absent"):
        read_suite(tmp_path / "absent.jsonl")


def test_an_unknown_suite_is_named() -> None:
    with pytest.raises(DataError, match="suite 'long' does not come with us; allowed: short_tasks"):
        built_in_suite("long")


def test_execute_counts_and_names_what_failed(tmp_path: Path) -> None:
    suite = built_in_suite("short_tasks")
    assert (execute(suite, "canonical").passed, execute(suite, "none").passed) == (24, 0)
    lines = [{"task_id": task.task_id, "completion": task.canonical_solution} for task in suite.tasks]
    lines[3]["completion"] = "    raise KeyError('x')\n"
    lines[5]["completion"] = "    while True: pass\n"
    path = tmp_path / "solutions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    found = execute(suite, path, timeout_seconds=2.0)
    assert (found.passed, found.total) == (22, 24)
    assert [(failure.task_id, failure.cause.split(":")[0]) for failure in found.failures] == [
        ("short/3", "raised"),
        ("short/5", "timeout"),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"no completion for 'short/0' \(and 23 more\)"),
        (['{"task_id": "short/0"}'], "line 1: needed an object with task_id and completion"),
        (['{"task_id": "other", "completion": ""}'], "line 1: task_id 'other' is not in suite short_tasks"),
        (['{"task_id": "short/0", "completion": ""}'] * 2, "line 2: task_id 'short/0' is there twice"),
        (['{"task_id": "short/0", "completion": 1}'], "line 1: task_id and completion must be strings"),
    ],
)
def test_solutions_that_cannot_be_used(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "solutions.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        execute(built_in_suite("short_tasks"), path)
