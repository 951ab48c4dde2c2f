"""What else is made of the corpus's functions."""

import ast
import random

from components.alignment.examples.corpus_pairs import assertions_of, derived, docstring_of, fix_of
from components.alignment.examples.functions import extract
from components.alignment.examples.instruction import Instruction

SOURCE = '''
def clamp(x, low):
    """Keep x from falling below a bound."""
    if x < low:
        return low + 0
    return x


def double(x):
    """Twice x.

    >>> double(2)
    4
    >>> double(other)
    5
    """
    return x * 2


def nothing(x):
    """No number to change."""
    return x
'''


def functions() -> dict[str, Instruction]:
    return {each.name: each for each in extract(SOURCE, "d")}


def test_a_fix_is_the_function_with_one_mistake_and_without() -> None:
    right = functions()["clamp"]
    made = fix_of(right, random.Random(0))
    assert made is not None and made.kind == "fix"
    wrong = made.prompt.split("\n\n", 1)[1]
    assert ast.dump(ast.parse(wrong)) != ast.dump(ast.parse(made.answer))
    assert ast.dump(ast.parse(made.answer)) == ast.dump(ast.parse(f"{right.prompt}\n{right.answer}"))
    assert sum(a != b for a, b in zip(wrong.split(), made.answer.split(), strict=True)) == 1
    assert fix_of(functions()["nothing"], random.Random(0)) is None


def test_a_docstring_is_asked_for_without_being_shown() -> None:
    made = docstring_of(functions()["clamp"])
    assert made is not None and made.answer == "Keep x from falling below a bound."
    assert made.answer not in made.prompt and "return x" in made.prompt
    assert docstring_of(functions()["double"]) is None, "its examples are tests"


def test_assertions_are_the_examples_that_stand_alone() -> None:
    made = assertions_of(functions()["double"])
    assert made is not None and made.answer == "assert double(2) == 4"
    assert ">>>" not in made.prompt and "4" not in made.prompt
    assert assertions_of(functions()["clamp"]) is None


def test_at_most_so_many_of_each_kind_are_made() -> None:
    kinds = [each.kind for each in derived(list(functions().values()), most=1, seed=0)]
    assert kinds == ["docstring", "tests", "fix"]
