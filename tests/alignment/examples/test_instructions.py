"""Instruction pairs against hand-made modules."""

import ast
from pathlib import Path

import polars as pl
import pytest

from components.alignment.examples.examples import Example, examples_of
from components.alignment.examples.functions import extract, read_functions
from components.alignment.examples.instruction import Instruction
from components.alignment.examples.names import unresolved_names

SOURCE = '''
import os, sys
import numpy as np
from math import sqrt

LIMIT = 3

@decorated
def first(a: int,
          b: str = "x") -> int:
    """Do first.

    >>> first(1)
    2
    """
    # keep this comment
    if a:
        return LIMIT

    return sqrt(a)


def no_docstring(a):
    return a


def empty(a):
    """Nothing."""
    pass


def abstract(a):
    """Nothing."""
    raise NotImplementedError("later")


def one_line(a): "Doc."; return a


class Thing:
    def method(self, x):
        """Method."""
        def inner(y):
            """Inner."""
            return y
        return inner(x)

    async def wait(self):
        """Wait."""
        await self.go()


if LIMIT:
    def conditional():
        \'\'\'Conditional.\'\'\'
        text = """
less indented
"""
        return text


def stated(x):
    """Double: stated(2) -> 4."""
    return 2 * x
'''


def test_functions_are_cut_after_their_docstring_and_dedented() -> None:
    found = {each.name: each for each in extract(SOURCE, "d")}
    assert list(found) == ["first", "method", "wait", "stated"]
    assert found["first"].prompt == (
        'def first(a: int,\n          b: str = "x") -> int:\n    """Do first.\n\n    >>> first(1)\n    2\n    """'
    )
    assert found["first"].answer == ("    # keep this comment\n    if a:\n        return LIMIT\n\n    return sqrt(a)")
    assert found["method"].prompt == 'def method(self, x):\n    """Method."""'
    assert found["first"].preamble == "import os, sys\nfrom math import sqrt"
    assert {"os", "np", "LIMIT", "Thing", "conditional"} <= (found["first"].known_names or set())


def test_prompt_and_answer_make_the_function_again() -> None:
    for each in extract(SOURCE, "d"):
        (node,) = ast.parse(f"{each.prompt}\n{each.answer}").body
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        assert node.name == each.name


def test_only_plain_functions_have_examples() -> None:
    found = {each.name: each.examples for each in extract(SOURCE, "d")}
    assert found["first"] == ()  # decorated: what is called is not what is written
    assert found["stated"] == (Example(source="stated(2)\n", want="4\n"),)


@pytest.mark.parametrize("text", ["def (", "\0", "(" * 1000, ""])
def test_a_file_that_does_not_parse_gives_nothing(text: str) -> None:
    assert extract(text, "d") == []


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        (">>> f(1)\n2\n", [Example(source="f(1)\n", want="2\n")]),
        ("f(1) == [1, 2]", [Example(source="f(1)\n", want="[1, 2]\n")]),
        ("  - `f('a') => 'b'`", [Example(source="f('a')\n", want="'b'\n")]),
        ("f(1) returns None.", [Example(source="f(1)\n", want="")]),
        (
            ">>> f(0)\nTraceback (most recent call last):\n    ...\nValueError: no\n",
            [Example(source="f(0)\n", want="Traceback (most recent call last):\n    ...\n", error="ValueError: no")],
        ),
        (">>> f(1)  # doctest: +SKIP\n2\n", []),
        (">>> g(1)\n2\n", []),
        ("f(x) -> y", []),
        ("no examples", []),
    ],
)
def test_examples_are_read_in_both_forms(docstring: str, expected: list[Example]) -> None:
    found = list(examples_of(docstring, "f"))
    assert [(each.source, each.error) for each in found] == [(each.source, each.error) for each in expected]
    assert [each.want for each in found if each.error is None] == [each.want for each in expected if not each.error]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("def f(a, *b, c=1, **d):\n    return a + b + c + d", set()),
        ("def f():\n    return [x for x in range(3)] + missing", {"missing"}),
        ("def f():\n    import os\n    with open(os.sep) as g:\n        return g", set()),
        ("def f():\n    try:\n        pass\n    except ValueError as e:\n        return e", set()),
        ("def f(x):\n    match x:\n        case [a, *b]:\n            return a, b, known", set()),
        ("def f():\n    return (y := 1) + y + print", set()),
    ],
)
def test_unresolved_names(function: str, expected: set[str]) -> None:
    assert unresolved_names(function, frozenset({"known"})) == expected
    assert unresolved_names(function, None) == set()  # a star import may bind anything


def test_uses_are_disjoint_deterministic_and_of_training_documents_alone(world: Path) -> None:
    def read(use: str) -> list[Instruction]:
        return list(read_functions(world / "source", world / "tokens", [use]))  # type: ignore[arg-type]

    uses = {use: read(use) for use in ("tuning", "heldout", "pairs")}
    prompts = [each.prompt for found in uses.values() for each in found]
    assert len(prompts) == len(set(prompts)) == 4 * 48  # four functions of 48 modules; those about eggs are held back
    assert not any("egg" in prompt for prompt in prompts)
    assert [each.prompt for each in read("tuning")] == [each.prompt for each in uses["tuning"]]
    trained = set(pl.read_parquet(world / "tokens" / "train.documents.parquet")["id"])
    assert {each.document for found in uses.values() for each in found} <= trained
    shares = {use: sum(bool(each.examples) for each in found) / 96 for use, found in uses.items()}
    assert shares["pairs"] > 0.6  # prompts with examples go where they are of use
    assert len(uses["tuning"]) > len(uses["heldout"]) > 0
