"""Examples that a docstring states, as a program that checks them.

Two forms count: doctests (`>>> f(1)` and the lines below) and one-line statements (`f(1) -> 2`, `f(1) == 2`,
`f(1) returns 2`) whose right side is a literal. The program compares what a reader would see in the interpreter.
Not covered: doctest directives (such a docstring has no examples here), examples that need more than the function and
the standard library (their reference fails, so they are not used).
"""

import ast
import doctest
import re
from dataclasses import dataclass

from components.execution.sandbox import Program

# The sandbox's control turns the last assertion round: in COMPARED it is reached in every example, in ENDED after all.
RUN = """
def _check_examples(examples, scope):
    import contextlib, io
    done = 0
    for source, want, error in examples:
        seen, found = io.StringIO(), None
        try:
            with contextlib.redirect_stdout(seen):
                exec(compile(source, "<example>", "single"), scope)
        except Exception as raised:
            if error is None:
                raise
            found = f"{type(raised).__name__}: {raised}".split("\\n")[0]
        done += 1
"""
COMPARED = """
        wanted = error and error.split("\\n")[0]
        assert found == wanted, f"example differs: {found or source.strip() + ' did not raise'}"
        assert error or seen.getvalue() == want, f"example differs: {source.strip()} gave {seen.getvalue()[:80]!r}"
"""
ENDED = """
    assert done == len(examples), "not every example has run"
"""
_CALL = r"\b(\w+\((?:[^()\n]|\([^()\n]*\))*\))"
_STATED = re.compile(_CALL + r"\s*(?:->|=>|==|→|returns)\s*(.+?)`{0,2}\.?\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One line to run, what it should print, or the error it should raise ("ValueError: too big")."""

    source: str
    want: str
    error: str | None = None


def examples_of(docstring: str, name: str) -> tuple[Example, ...]:
    """The examples that a docstring states about the function `name`; none when only some can be read."""
    try:
        doctests = doctest.DocTestParser().get_examples(docstring)
    except ValueError:  # inconsistent indentation: no doctest to Python either
        return ()
    if any(each.options for each in doctests):
        return ()
    examples = [
        Example(source=each.source, want=each.want, error=_message(each))
        for each in doctests
        if not re.fullmatch(rf"from [\w.]+ import {name}\s*", each.source)  # the function is there already
    ]
    examples.extend(_stated(docstring, name))
    return tuple(examples) if any(f"{name}(" in each.source for each in examples) else ()


def _message(example: doctest.Example) -> str | None:
    return example.exc_msg.strip() if example.exc_msg is not None else None


def _stated(docstring: str, name: str) -> list[Example]:
    """`f(1) -> 2` as the example that `f(1)` prints 2, where both sides can be read."""
    examples = []
    for call, result in _STATED.findall(docstring):
        if not call.startswith(f"{name}("):
            continue
        try:
            ast.parse(call, mode="eval")
            value = ast.literal_eval(result)
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
            continue
        examples.append(Example(source=call + "\n", want="" if value is None else f"{value!r}\n"))
    return examples


def program(preamble: str, function: str, examples: tuple[Example, ...], *, compared: bool = True) -> Program:
    """A program that defines the function after its module's imports and passes exactly when every example holds; when
    every example comes to its end, whatever it gives, if they are not compared."""
    table = [(each.source, each.want, each.error) for each in examples]
    test = f"{RUN}{COMPARED if compared else ENDED}\n_check_examples({table!r}, globals())\n"
    return Program(source=f"{preamble}\n{function}\n", test=test)
