"""The control of a Python program: the same program with one assertion of its test turned round.

A right program fails there, since what held does not fail to hold now. A program that skips its test, jumps over it or
puts another `check` in the place of the test's passes, and is found out. Only an assertion that every right program
reaches can be turned round: one at the margin of the test, or of a function that the test calls, outside of branches,
handlers and classes; one in a for loop where there is no other; never `assert True` nor `assert False`. The program's
digest says which of them, so that no program knows which it must meet and the verdict is the same in every run. A test
without any gets a false assertion after its last line.
Not covered: a program that skips some assertions but not this one; a loop that runs over nothing; `return` before it.
"""

import ast
import zlib
from collections.abc import Iterator, Sequence

FALSE = "\nassert False, 'control'\n"


def control_of(source: str, test: str) -> str:
    """The test of a program's control: `assert x, words` is `assert not (x), words`, and all else is where it was."""
    try:
        tree = ast.parse(test)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a test that does not stand alone
        return test + FALSE
    called = {each.func.id for each in ast.walk(tree) if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)}
    assertions = [*_reached(tree.body, called, loops=False)] or [*_reached(tree.body, called, loops=True)]
    if not assertions:
        return test + FALSE
    asserted = assertions[zlib.crc32(source.encode(errors="surrogatepass")) % len(assertions)].test
    lines = test.encode().splitlines(keepends=True)
    _insert(lines, asserted.end_lineno, asserted.end_col_offset, b")")
    _insert(lines, asserted.lineno, asserted.col_offset, b"not (")
    return b"".join(lines).decode()


def _insert(lines: list[bytes], number: int | None, column: int | None, text: bytes) -> None:
    """Put text into a line, at a column that ast counts in bytes."""
    assert number is not None and column is not None
    line = lines[number - 1]
    lines[number - 1] = line[:column] + text + line[column:]


def _reached(body: Sequence[ast.stmt], called: set[str], *, loops: bool) -> Iterator[ast.Assert]:
    """Assertions that are reached whenever the program comes to its end, in the order of the text."""
    for statement in body:
        if isinstance(statement, ast.Assert) and not isinstance(statement.test, ast.Constant):
            yield statement
        elif (isinstance(statement, ast.FunctionDef) and statement.name in called) or (
            loops and isinstance(statement, ast.For)
        ):
            yield from _reached(statement.body, called, loops=loops)
