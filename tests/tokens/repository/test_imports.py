"""Files of a package are read behind those that they import, whatever order they come in."""

import ast
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.tokens.repository.imports import imported_modules, links, nearest_last, reading_order

PATHS = ["src/app/__init__.py", "src/app/core.py", "src/app/web/__init__.py", "src/app/web/page.py", "README.md"]


def linked(path: str, *modules: str) -> list[str]:
    """The files of PATHS that a file of these imports has as links."""
    imports = [list(modules) if each == path else [] for each in PATHS]
    return [PATHS[each] for each in links(PATHS, imports)[PATHS.index(path)]]


def test_imports_are_read_as_python_reads_them() -> None:
    text = """import os, app.core as core
from app.web import page as p, style
from . import a
from ..b.c import (d,
    e)
from .x import *
def f():
    from late import thing
"""
    found = imported_modules(text)
    assert found == ["os", "app.core", "app.web.page", "app.web.style", ".a", "..b.c.d", ".x", "late.thing"]
    tree = [each for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Import | ast.ImportFrom)]
    assert len(tree) == 6, "the text is Python"


@pytest.mark.parametrize(
    ("path", "module", "target"),
    [
        ("src/app/web/page.py", "app.core", "src/app/core.py"),  # below a folder that is no package
        ("src/app/web/page.py", "app.core.name", "src/app/core.py"),  # a name of a module
        ("src/app/web/page.py", "..core", "src/app/core.py"),
        ("src/app/web/page.py", ".", "src/app/web/__init__.py"),
        ("src/app/__init__.py", ".web.page", "src/app/web/page.py"),
        ("src/app/core.py", "core", None),  # the standard library may have it
        ("src/app/core.py", ".core", None),  # itself
        ("src/app/core.py", "......core", None),  # beyond the root
        ("README.md", "app", None),
    ],
)
def test_a_module_is_found_by_its_name_or_its_end(path: str, module: str, target: str | None) -> None:
    assert linked(path, module) == ([target] if target else [])


@given(st.integers(1, 9), st.data())
def test_every_file_once_and_behind_what_it_imports(number: int, data: st.DataObject) -> None:
    """Without cycles all links point back; with cycles every file is still there once; names alone break ties."""
    names = data.draw(st.permutations([f"m{each}" for each in range(number)]))
    pairs = data.draw(st.sets(st.tuples(st.integers(0, number - 1), st.integers(0, number - 1))))
    for cyclic in (False, True):
        imports = [
            [f"p.{names[b]}" for a, b in sorted(pairs) if a == file and (cyclic or b < a)] for file in range(number)
        ]
        paths = [f"p/{name}.py" for name in names]
        order = reading_order(paths, imports)
        assert sorted(order) == list(range(number))
        if not cyclic:
            places = {file: place for place, file in enumerate(order)}
            assert all(places[b] < places[a] for a, b in pairs if b < a)
        shuffled = data.draw(st.permutations(range(number)))
        again = reading_order([paths[each] for each in shuffled], [imports[each] for each in shuffled])
        assert [paths[shuffled[each]] for each in again] == [paths[each] for each in order]
    assert [paths[each] for each in reading_order(paths, [[]] * number)] == sorted(paths)


def test_what_is_imported_stands_right_before_its_file() -> None:
    paths = ["p/a.py", "p/b.py", "p/c.py", "q/d.py"]
    order = reading_order(paths, [["p.c", "q.d"], [], [], []])
    assert [paths[each] for each in order] == ["p/c.py", "q/d.py", "p/a.py", "p/b.py"]


def test_long_chains_need_no_stack() -> None:
    paths = [f"p/m{number:05}.py" for number in range(5000)]
    order = reading_order(paths, [[f"p.m{number + 1:05}"] for number in range(5000)])
    assert order == list(range(5000))[::-1]


def test_what_a_file_imports_is_nearest_then_its_folder() -> None:
    paths = ["z.py", "a/b/far.py", "a/near.py", "a/b/c/deep.py", "other/used.py"]
    order = nearest_last("a/b/file.py", ["other.used"], paths)
    assert [paths[each] for each in order] == ["z.py", "a/near.py", "a/b/c/deep.py", "a/b/far.py", "other/used.py"]
    for some in itertools.permutations(range(5)):
        again = nearest_last("a/b/file.py", ["other.used"], [paths[each] for each in some])
        assert [some[each] for each in again] == order
