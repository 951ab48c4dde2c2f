"""Which assertion of a test is turned round: one that right programs reach, or none."""

import pytest

from components.execution.control import FALSE, control_of

UNREACHED = {
    "branch": "if f(0):\n    assert f(1)\n",
    "handler": "try:\n    f()\n    assert False\nexcept TypeError as error:\n    assert error.args\n",
    "function that nobody calls": "def check(candidate):\n    assert candidate(1)\n",
    "class": "class Test:\n    assert f(1)\n",
    "constant": "assert True, 'reached'\n",
    "no test": "",
    "not Python": "assert f(1",
    "null byte": "assert f(1)\0",
}


def test_each_assertion_that_is_reached_has_its_turn() -> None:
    check = "def check(g):\n    for n in g: assert n\n    assert (\n        g('ü'))\ncheck(f)\n"
    test = f"assert f(1) == 2\n{check}assert f, 'é'\n"
    found = {control_of(f"program {number}", test) for number in range(64)}
    assert found == {
        test.replace("f(1) == 2", "not (f(1) == 2)"),
        test.replace("g('ü')", "not (g('ü'))"),
        test.replace("assert f, ", "assert not (f), "),
    }
    assert control_of("program", test) == control_of("program", test)


def test_one_in_a_loop_is_taken_where_there_is_no_other() -> None:
    test = "for n in range(3):\n    assert f(n), 'words'\n"
    assert control_of("", test) == "for n in range(3):\n    assert not (f(n)), 'words'\n"


@pytest.mark.parametrize("name", UNREACHED)
def test_without_one_that_is_surely_reached_a_false_one_follows(name: str) -> None:
    assert control_of("", UNREACHED[name]) == UNREACHED[name] + FALSE
