"""Names by scope, against what the interpreter finds when the code runs."""

import pytest

from components.alignment.examples.names import module_names, unresolved_names

MODULE = """
import os.path, numpy as np
from json import dumps as write
LIMIT: int = 3
if LIMIT:
    conditional = 1
for index in range(2):
    pass
with open(os.devnull) as file:
    file.close()
try:
    import absent_module
except ImportError as problem:
    absent_module = None
(walrus := 4)
first, *rest = [1, 2]
def function(parameter):
    global made
    made, local = 1, 2
class Thing:
    inside = 1
"""
FUNCTIONS = {
    "def f(a):\n    return a + LIMIT": set(),
    "def f(a):\n    return b": {"b"},
    "def f(a):\n    def g():\n        c = 1\n    return c": {"c"},
    "def f(a):\n    [c for c in a]\n    return c": {"c"},
    "def f(a):\n    return [c + d for c in a if (d := c)]": set(),
    "def f(a):\n    class K:\n        v = 1\n        def m(self):\n            return v\n    return K().m()": {"v"},
    "def f(a):\n    return (lambda c, *d, e=1, **k: c + e + h)(1)": {"h"},
    "def f(a):\n    global made\n    made = 2\n    return made": set(),
    "def f(a):\n    try:\n        a()\n    except Unknown as e:\n        return e": {"Unknown"},
    "def f(a):\n    match a:\n        case [b, *c]: return b, c\n        case X(): return 1": {"X"},
    "def f(a):\n    match a:\n        case {'k': d, **e}: return d, e": set(),
    "def f(a):\n    import os as system\n    return system, os": {"os"},
    "def f(a: Missing = other):\n    return print(a)": {"Missing", "other"},
    "def f(self):\n    return super().g(), __class__": set(),
    "def f(a):\n    def g():\n        nonlocal a\n        a = 1\n    return f, g": set(),
    "async def f(a):\n    async with a as b:\n        return b": set(),
}


def test_a_module_binds_what_it_has_when_it_has_run() -> None:
    space: dict[str, object] = {}
    exec(MODULE.replace(", numpy as np", ""), space)
    space["function"](0)  # type: ignore[operator]
    names = module_names(MODULE)
    assert names is not None
    assert names - {"problem", "np"} == set(space) - {"__builtins__", "__annotations__"}


def test_a_star_import_hides_what_a_module_binds() -> None:
    assert module_names("if x:\n    from os import *") is None
    assert unresolved_names("def f():\n    return anything", None) == set()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_name_is_unresolved_where_no_scope_around_it_binds_it(function: str) -> None:
    known = frozenset({"LIMIT"})
    assert unresolved_names(function, known) == FUNCTIONS[function]
