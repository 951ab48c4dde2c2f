"""Suites of programs: the format, its mistakes, and what the sandbox says of right and wrong solutions."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from components.core.config import read_settings
from components.core.errors import DataError
from components.core.graph.closure import ROOT
from components.data.cleaning.suite_formats import NAMES
from components.evaluation.config import BUILT_IN_SUITES, FunctionalConfig
from components.evaluation.measures import functional
from components.evaluation.measures.execute import execute
from components.evaluation.measures.functional import Suite, built_in_suite, extract, read_suite, run_solutions
from components.execution import sandbox
from components.execution.languages import LANGUAGES, missing

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
    canonical = {task.task_id: task.canonical_solution or "" for task in suite.tasks}
    assert all(run(suite, canonical).values())
    assert not any(run(suite, dict.fromkeys(canonical, "    pass\n")).values())
    shifted = dict(zip(canonical, [*list(canonical.values())[1:], "    return 0\n"], strict=True))
    assert not any(run(suite, shifted).values())
    assert all(task.prompt.endswith('"""\n') and canonical[task.task_id].count("\n") == 1 for task in suite.tasks)


OTHERS = [
    each if each in ("javascript", "bash", "c") else pytest.param(each, marks=pytest.mark.slow)
    for each in LANGUAGES
    if each != "python"
]


@pytest.mark.parametrize("name", OTHERS)
def test_our_suites_in_other_languages_tell_right_from_wrong(name: str) -> None:
    """Canonical solutions pass; bare prompts and each other's solutions do not. Two tasks where starts are slow."""
    if reason := missing(name):
        pytest.skip(reason)
    suite = built_in_suite(f"short_{name}")
    suite = replace(suite, tasks=suite.tasks if name in ("javascript", "bash", "c") else suite.tasks[:2])
    assert {task.language for task in suite.tasks} == {name}
    canonical = [task.canonical_solution or "" for task in suite.tasks]
    assert [extract(task, task.canonical_solution or "") for task in suite.tasks] == canonical
    assert all(run(suite, dict(zip([task.task_id for task in suite.tasks], canonical, strict=True))).values())
    shifted = [*canonical[1:], canonical[0]]
    assert not any(run(suite, dict(zip([task.task_id for task in suite.tasks], shifted, strict=True))).values())
    assert execute(suite, "none").passed == 0


def test_humaneval_is_read_and_its_solutions_pass() -> None:
    path = ROOT / read_settings().benchmarks / "HumanEval.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is absent: set OVERNIGHT_BENCHMARKS to the folder that holds it")
    suite = read_suite(path)
    assert (suite.name, len(suite.tasks)) == ("HumanEval", 164)
    assert execute(suite, "canonical").failures == ()
    assert execute(suite, "none").passed == 0


@pytest.mark.drill
def test_humaneval_x_passes_where_its_own_solutions_are_right() -> None:
    path = ROOT / read_settings().benchmarks / "humaneval_x_js.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is absent: set OVERNIGHT_BENCHMARKS to the folder that holds it")
    if reason := missing("javascript"):
        pytest.skip(reason)
    suite = read_suite(path)
    found = execute(suite, "canonical")
    assert (found.passed, found.total) == (161, 164)
    causes = {failure.task_id: failure.cause for failure in found.failures}
    wrong = "raised: Error: console.assert: false"
    assert causes == {
        "JavaScript/112": wrong,
        "JavaScript/155": wrong,
        "JavaScript/162": "raised: Error: Cannot find module 'js-md5'",
    }
    assert execute(suite, "none").passed == 0
    assert all(
        extract(task, (task.canonical_solution or "") + "const x = 1\n").strip().endswith("}") for task in suite.tasks
    )


MBPP: dict[str, Any] = {
    "task_id": 2,
    "text": "Write a function to add two numbers.",
    "code": "def add(a, b):\r\n  return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert add(K, 0) == 7"],
    "test_setup_code": "K = 7",
    "challenge_test_list": [],
}
MULTIPL_E: dict[str, Any] = {
    "name": "HumanEval_53_add",
    "language": "js",
    "prompt": "//Add two numbers x and y\nfunction add(x, y){\n",
    "tests": "const assert = require('node:assert');\n\n\nfunction test() {\n  let candidate = add;\n"
    "  assert.deepEqual(candidate(0, 1),1);\n}\n\ntest();",
    "stop_tokens": ["\nfunction ", "\n/*", "\n//", "\nconsole.log"],
}


def test_every_language_of_the_table_has_a_name_in_suites() -> None:
    assert set(NAMES.values()) == set(LANGUAGES)


def written(folder: Path, *lines: object) -> Path:
    path = folder / "suite.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_mbpp_is_read_as_published_and_sanitized(tmp_path: Path) -> None:
    sanitized = {key: MBPP[key] for key in ("task_id", "code", "test_list")}
    sanitized |= {"prompt": MBPP["text"], "test_imports": ["K = 7"]}
    for line in (MBPP, sanitized):
        suite = read_suite(written(tmp_path, line))
        assert suite.tasks[0].task_id == "MBPP/2"
        assert suite.tasks[0].prompt.startswith('"""\nWrite a function')
        assert (execute(suite, "canonical").passed, execute(suite, "none").passed) == (1, 0)
        wrong = {"task_id": "MBPP/2", "completion": "def add(a, b):\n    return 3\n"}
        (tmp_path / "wrong").write_text(json.dumps(wrong))
        assert execute(suite, tmp_path / "wrong").passed == 0, "its second test counts"
    text = "def add(a, b):\n    return a + b\n\nprint(add(1, 2))\n"
    assert extract(suite.tasks[0], text) == "def add(a, b):\n    return a + b\n"


def test_multipl_e_is_read_and_judged_by_its_own_tests(tmp_path: Path) -> None:
    if reason := missing("javascript"):
        pytest.skip(reason)
    suite = read_suite(written(tmp_path, MULTIPL_E))
    text = "  return x + y\n}\n// more\nfunction other() {}\n"
    assert extract(suite.tasks[0], text) == "  return x + y\n}"
    found = run(replace(suite, tasks=suite.tasks), {"HumanEval_53_add": extract(suite.tasks[0], text)})
    assert found == {"HumanEval_53_add": True}
    assert run(suite, {"HumanEval_53_add": "  return x - y\n}"}) == {"HumanEval_53_add": False}
    with pytest.raises(DataError, match="has no canonical solutions; name a file"):
        execute(suite, "canonical")


PLUS: dict[str, Any] = {
    **MBPP,
    "test": "for a, b in [(1, 2), (9, 9)]:\n    assert add(a, b) == a + b\n",
    "source_file": "own",
    "prompt": "",
}
X: dict[str, Any] = {
    "task_id": "Python/0",
    "prompt": "def one():\n",
    "canonical_solution": "    return 1\n",
    "declaration": "def one():",
}
X |= {"test": "def check(candidate):\n    assert candidate() == 1\ncheck(one)\n", "example_test": "check(two)"}


@pytest.mark.parametrize("extra", [{}, {"test": ""}, {"challenge_test_list": ["assert add(20, 1) == 21"], "test": ""}])
def test_every_test_of_an_mbpp_line_is_run(tmp_path: Path, extra: dict[str, object]) -> None:
    """A solution that passes test_list alone fails what MBPP+ adds, and what a challenge adds, but not without them."""
    suite = read_suite(written(tmp_path, {**PLUS, **extra}))
    assert execute(suite, "canonical").passed == 1
    learned = {"task_id": "MBPP/2", "completion": "def add(a, b):\n    return 3 if a == 1 else 7\n"}
    (tmp_path / "learned").write_text(json.dumps(learned))
    assert execute(suite, tmp_path / "learned").passed == (extra == {"test": ""})


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ({**TASK, "base_input": [[1]], "atol": 0}, "base_input"),
        ({**TASK, "plus_input": [[2]]}, "plus_input"),
        ({**TASK, "atol": 1e-6}, "atol"),
        ({**TASK, "tests": "assert False"}, "test"),  # MultiPL-E by its tests, which has no test
        ({**TASK, "test_imports": ["import os"]}, "test_imports"),
        ({**TASK, "hidden_tests": ["assert one() == 2"]}, "hidden_tests"),
        ({**TASK, "privateTestCases": [1]}, "privateTestCases"),
        ({**TASK, "language": "javascript"}, "language"),
        ({**TASK, "stop_tokens": ["x"]}, "stop_tokens"),
        ({**MBPP, "assertion": "assert add(1, 1) == 2"}, "assertion"),
        ({**MBPP, "plus_input": [[1, 2]]}, "plus_input"),
        ({**MULTIPL_E, "test": "process.exit(1)"}, "test"),
        ({**X, "test_setup": "import x"}, "test_setup"),
        ({**X, "language": "java"}, "language"),
    ],
)
def test_a_field_that_would_decide_is_refused_by_its_name(tmp_path: Path, line: dict[str, object], field: str) -> None:
    with pytest.raises(DataError, match=f"line 1: {field} is .*: it looks like a part of the test, and is not run"):
        read_suite(written(tmp_path, line))


@pytest.mark.parametrize(
    "line",
    [
        {
            **TASK,
            "contract": "assert True",
            "difficulty": 3,
            "contest_id": 7,
            "latest": "x",
            "source": "own",
            "atol": 0,
        },
        {**TASK, "language": "Python3", "base_input": [], "plus_input": None, "signature": "one()", "split": "test"},
        {**PLUS, "entry_point": "add", "task_url": "x", "important": "yes"},
        {**MULTIPL_E, "doctests": "transform", "original": "x.py", "prompt_terminology": "reworded"},
        {**X, "language": "python", "text": "words"},
    ],
)
def test_what_is_no_test_is_left_aside(tmp_path: Path, line: dict[str, object]) -> None:
    assert len(read_suite(written(tmp_path, line)).tasks) == 1


@pytest.mark.parametrize("line", [{**X, "test": X["test"].replace("check(one)", "")}, {**PLUS, "test": TASK["test"]}])
def test_a_test_that_nobody_calls_is_no_test(tmp_path: Path, line: dict[str, object]) -> None:
    with pytest.raises(DataError, match="line 1: its test defines check and never calls it, so that every program"):
        read_suite(written(tmp_path, line))


def needing(module: str) -> dict[str, str]:
    return {**TASK, "test": f"import {module} as module\n{TASK['test']}    assert module.__name__ == {module!r}\n"}


def test_numpy_is_there_for_tests_that_import_it(tmp_path: Path) -> None:
    suite = read_suite(written(tmp_path, needing("numpy")))
    assert (execute(suite, "canonical").passed, execute(suite, "none").passed) == (1, 0)


def test_what_a_test_imports_and_is_absent_is_no_failure_of_the_solution(tmp_path: Path) -> None:
    other = {**TASK, "task_id": "t/1"}
    suite = read_suite(written(tmp_path, needing("absent_module"), other))
    found = execute(suite, "canonical")
    assert (found.passed, found.total, found.failures) == (1, 1, ())
    (cause,) = [each.cause for each in found.not_run if each.task_id == "t/0"]
    assert cause == (
        "not_run: its test needs `import absent_module`, which fails in the sandbox: ModuleNotFoundError: No module "
        "named 'absent_module'; programs see the standard library, and numpy where this environment has it"
    )
    nothing = cast(Any, None)
    with pytest.raises(DataError, match="suite suite: t/0: its test needs `import absent_module`"):
        functional.num_passed(cast(Any, SimpleNamespace(context_tokens=64)), nothing, suite, FunctionalConfig(), 0.6, 0)


def test_what_a_solution_imports_and_is_absent_is_its_failure(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(json.dumps({"task_id": "t/0", "completion": "    import absent_module\n"}))
    found = execute(read_suite(written(tmp_path, TASK)), tmp_path / "s")
    assert [each.cause for each in found.failures] == ["raised: ModuleNotFoundError: No module named 'absent_module'"]


def test_a_package_that_a_test_requires_is_no_failure_of_the_solution(tmp_path: Path) -> None:
    if reason := missing("javascript"):
        pytest.skip(reason)
    line = {**MULTIPL_E, "tests": "const x = require('absent-package');\n" + MULTIPL_E["tests"]}
    (tmp_path / "s").write_text(json.dumps({"task_id": MULTIPL_E["name"], "completion": "  return x + y\n}"}))
    found = execute(read_suite(written(tmp_path, line)), tmp_path / "s")
    assert (found.total, len(found.not_run)) == (0, 1)
    assert found.not_run[0].cause.startswith("not_run: its test needs `require('absent-package')`, which fails")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({**MULTIPL_E, "language": "cobol"}, r"line 1: language is 'cobol': .*cannot be run; known: python"),
        ({**MULTIPL_E, "stop_tokens": "x"}, r"line 1: stop_tokens is 'x'"),
        ({**MBPP, "test_list": []}, r"line 1: test_list is '\[\]'"),
        ({**MBPP, "text": ""}, r"line 1: .*neither text nor prompt"),
        (
            {**TASK, "task_id": "Go/3", "declaration": "", "entry_point": None},
            r"line 1: entry_point is 'None'",
        ),
        (
            {"task_id": "Go/3", "prompt": "p", "canonical_solution": "", "test": "t", "declaration": ""},
            r"line 1: task_id is 'Go/3': .*'go' is not covered; covered: python, javascript",
        ),
    ],
)
def test_a_mistake_in_another_format_names_its_field(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_suite(written(tmp_path, line))


def test_a_language_that_is_not_installed_is_reported_and_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "missing", lambda name: "node not found; install nodejs" if name != "python" else None)
    line = {**MULTIPL_E, "canonical_solution": "return x + y }"}
    found = execute(read_suite(written(tmp_path, line)), "canonical")
    assert (found.passed, found.total, found.failures) == (0, 0, ())
    assert [each.cause for each in found.not_run] == ["not_run: node not found; install nodejs"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"suite\.jsonl: line 3: not JSON"),
        pytest.param("[" * 100_000, r"line 3: not JSON: maximum recursion depth", id="nested"),
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


def test_line_separators_within_a_string_end_no_line(tmp_path: Path) -> None:
    """U+2028 and U+0085 are white space to Python's splitlines, and text to JSON."""
    task = {**TASK, "prompt": TASK["prompt"].replace("Return", "Return\u2028\u0085")}
    path, solution = tmp_path / "s.jsonl", tmp_path / "solutions.jsonl"
    path.write_text(json.dumps(task, ensure_ascii=False) + "\r\n")
    suite = read_suite(path)
    assert [each.prompt for each in suite.tasks] == [task["prompt"]]
    solution.write_text(json.dumps({"task_id": "t/0", "completion": "    return 1  # \u2028\n"}, ensure_ascii=False))
    assert execute(suite, solution).total == 1


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
        ("a.jsonl.gz", gzip.compress(b"{}", mtime=0)[:-4], "cannot be read as JSON lines"),
    ],
)
def test_an_unreadable_file(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_suite(tmp_path / name)
    with pytest.raises(DataError, match="absent"):
        read_suite(tmp_path / "absent.jsonl")


def test_an_unknown_suite_is_named() -> None:
    with pytest.raises(
        DataError, match=r"suite .long. is no file and does not come with us; allowed: short_bash, .*, short_tasks"
    ):
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


def test_a_model_is_not_failed_for_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is generated: neither engine nor tokenizer is touched."""
    monkeypatch.setattr(functional, "missing", lambda name: "go not found; install golang-go")
    nothing = cast(Any, None)
    engine = SimpleNamespace(context_tokens=64)
    with pytest.raises(DataError, match="suite short_go: go not found; install golang-go"):
        functional.num_passed(cast(Any, engine), nothing, built_in_suite("short_go"), FunctionalConfig(), 0.6, 0)
