"""Every language of the table: right passes, wrong and forged fail; what is not installed is said, not failed."""

import shutil

import pytest

from components.evaluation.config import FunctionalConfig
from components.execution import languages
from components.execution.languages import LANGUAGES, missing
from components.execution.sandbox import Outcome, Program, run_program, run_programs

# For each: a program with a hole for the sum of a and b, and holes before and within it.
ADDING = {
    "python": "def add(a, b):\n    {inside}\n    return {sum}\nassert add(1, 2) == 3\n",
    "javascript": "{before}const add = (a, b) => {{ {inside}; return {sum} }}\nconsole.assert(add(1, 2) === 3)\n",
    "bash": "add() {{\n a=$1 b=$2\n {inside}\n echo $(({sum}))\n}}\nset -e\n[[ $(add 1 2) = 3 ]]\n",
    "c": "#include <assert.h>\n#include <stdlib.h>\n{before}int add(int a, int b) {{ {inside}; return {sum}; }}\n"
    "int main() {{ assert(add(1, 2) == 3); return 0; }}\n",
    "cpp": "#include <cassert>\n#include <cstdlib>\n{before}int add(int a, int b) {{ {inside}; return {sum}; }}\n"
    "int main() {{ auto candidate = add; assert(candidate(1, 2) == 3); }}\n",
    "java": "import java.util.*;\nclass Problem {{\n    static int add(int a, int b) {{ {inside}; return {sum}; }}\n"
    "    public static void main(String[] args) {{ assert(add(1, 2) == 3); }}\n}}\n",
    "go": 'package add_test\n\nimport (\n\t"os"\n\t"testing"\n)\n\nvar _ = os.Exit\n\n'
    "func add(a int, b int) int {{\n\t{inside}\n\treturn {sum}\n}}\n\nfunc TestAdd(t *testing.T) {{\n"
    '\tif add(1, 2) != 3 {{\n\t\tt.Fatalf("sum")\n\t}}\n}}\n',
    "rust": "{before}fn add(a: i64, b: i64) -> i64 {{ {inside}; {sum} }}\n"
    "fn main() {{ let candidate = add; assert_eq!(candidate(1, 2), 3); }}\n",
}
EXITS = {
    "python": "import os; os._exit(0)",
    "javascript": "process.exit(0)",
    "bash": ":",  # a function's subshell cannot end the script: see before
    "c": "exit(0)",
    "cpp": "std::exit(0)",
    "java": "System.exit(0)",
    "go": "os.Exit(0)",
    "rust": "std::process::exit(0)",
}
DISARMED = {
    "javascript": "const console = {assert() {}};\n",
    "c": "#undef assert\n#define assert(x) 0\n",
    "cpp": "#undef assert\n#define assert(x) 0\n",
    "rust": "macro_rules! assert_eq { ($($x:tt)*) => {} }\nmacro_rules! assert { ($($x:tt)*) => {} }\n",
}


SLOW = [pytest.param(each, marks=pytest.mark.slow) if each in ("java", "go", "rust") else each for each in LANGUAGES]


def run(name: str, total: str, *, before: str = "", inside: str = "") -> Outcome:
    if reason := missing(name):
        pytest.skip(reason)
    source = ADDING[name].format(sum=total, before=before, inside=inside)
    return run_program(Program(source=source, language=name), timeout_seconds=10.0)


def test_every_language_has_a_program_here() -> None:
    assert set(ADDING) == set(EXITS) == set(LANGUAGES)


@pytest.mark.parametrize("name", SLOW)
def test_right_passes_and_wrong_fails(name: str) -> None:
    assert run(name, "a + b").passed
    assert run(name, "a - b").cause in ("raised", "killed", "exited")
    assert run(name, "a +* b").cause in ("raised", "not_compiled")


@pytest.mark.parametrize("name", SLOW)
def test_leaving_early_is_no_pass(name: str) -> None:
    outcome = (
        run(name, "a - b", inside=EXITS[name])
        if name != "bash"
        else run_program(Program(source="exit 0\nset -e\nfalse\n", language="bash"))
    )
    assert outcome.cause == "exited"


def test_what_main_returns_counts() -> None:
    if reason := missing("c"):
        pytest.skip(reason)
    outcomes = run_programs([Program(source=f"int main() {{ return {n}; }}", language="c") for n in (0, 1)])
    assert [outcome.cause for outcome in outcomes] == ["passed", "exited"]


@pytest.mark.parametrize("name", DISARMED)
def test_a_disarmed_assertion_is_found_out(name: str) -> None:
    assert run(name, "a - b", before=DISARMED[name]).cause == "forged"


def test_a_patched_console_changes_nothing() -> None:
    assert run("javascript", "a - b", before="console.assert = () => {};\n").cause == "raised"


def test_a_nonce_read_from_the_source_is_found_out() -> None:
    if reason := missing("javascript"):
        pytest.skip(reason)
    source = (
        "const text = require('fs').readFileSync(__filename, 'utf8')\n"
        "require('fs').writeSync(3, text.match(/writeSync\\(3, '(\\w+)'/)[1])\nprocess.exit(0)\n"
    )
    outcome = run_program(Program(source=source, language="javascript"))
    assert outcome.cause == "forged"


@pytest.mark.parametrize("name", ["javascript", "bash", "c"])
def test_programs_of_other_languages_are_held_as_well(name: str) -> None:
    """Time, memory, output and the host's files, without the warm interpreter's help."""
    if reason := missing(name):
        pytest.skip(reason)
    hostile = {
        "javascript": ["while (true) {}", "const x = []; while (true) x.push(new Array(1e6).fill(1))", "fs"],
        "bash": ["while :; do :; done", "cat /etc/shadow || exit 1", "yes"],
        "c": [
            "int main() { for (;;); }",
            '#include <stdio.h>\nint main() { return fopen("/etc/shadow", "r") == 0; }',
            "#include <unistd.h>\nint main() { for (;;) if (fork() < 0) return 1; }",
        ],
    }[name]
    outcomes = run_programs([Program(source=each, language=name) for each in hostile], timeout_seconds=2.0)
    assert outcomes[0].cause == "timeout"
    assert not any(outcome.passed for outcome in outcomes), outcomes


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    languages.missing.cache_clear()
    try:
        outcome = run_program(Program(source="package x", language="go"))
    finally:
        monkeypatch.undo()
        languages.missing.cache_clear()
    assert (outcome.cause, outcome.detail) == ("not_run", "go not found; install golang-go")


@pytest.mark.parametrize("name", SLOW)
def test_right_passes_within_the_memory_of_an_evaluation(name: str) -> None:
    if reason := missing(name):
        pytest.skip(reason)
    source = ADDING[name].format(sum="a + b", before="", inside="")
    memory_bytes = FunctionalConfig.model_validate({}).memory_bytes
    outcome = run_program(Program(source=source, language=name), timeout_seconds=10.0, memory_bytes=memory_bytes)
    assert outcome.passed, outcome


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ValueError, match="language 'cobol' cannot be run; known: python, javascript"):
        run_program(Program(source="", language="cobol"))
