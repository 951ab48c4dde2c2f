"""Each filter drops what it names and gives the figure; the parser is never brought down by a text."""

import gc
import warnings

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.config import FilterConfig
from components.data.documents import SCHEMA
from components.data.filters import apply_filters, quiet_parser, syntax_error
from tests.data.conftest import document

CODE = "def f(value):\n    return value + 1\n" * 3


def verdict(text: str, config: FilterConfig | None = None, **columns: object) -> tuple[str | None, str | None]:
    frame = apply_filters(pl.DataFrame([document(text, **columns)], schema=SCHEMA), config or FilterConfig())  # type: ignore[arg-type]
    return frame["reason"][0], frame["detail"][0]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (CODE, (None, None)),
        ("x = 1\n", ("too_small", "6")),
        (CODE * 3 + f"x = '{'y' * 1000}'\n", ("line_too_long", "1006")),
        ("\n".join(["# " + "word " * 30] * 3), ("mean_line_too_long", "152.0")),
        ("#" * 30 + "\n" + "#" * 40 + " a\n", ("few_alphanumeric", "0.0135")),
        (
            CODE + "print 'two'\n",
            ("syntax_error", "Missing parentheses in call to 'print'. Did you mean print(...)? (line 7)"),
        ),
        (CODE + "x = (\n", ("syntax_error", "'(' was never closed (line 7)")),
        (CODE + "# héé ≠ ü\n", (None, None)),
    ],
)
def test_a_document_gets_the_reason_of_the_first_filter_that_drops_it(text: str, wanted: tuple[str, str]) -> None:
    assert verdict(text) == wanted


def test_bounds_themselves_pass() -> None:
    line = "x" * 100
    exact = FilterConfig(max_line_characters=100, max_mean_line_characters=100, min_document_bytes=201)
    assert verdict(f"{line}\n{line}", exact) == (None, None)
    assert verdict(f"{line}\n{line}y", exact)[0] == "mean_line_too_long"


def test_only_python_is_parsed_and_only_when_asked() -> None:
    broken = CODE + "x = (\n"
    assert verdict(broken, language="javascript") == (None, None)
    assert verdict(broken, FilterConfig(check_syntax=False)) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\0",
        "(" * 10_000,
        "-" * 100_000 + "1",
        "x = " + "1+" * 100_000 + "1",
        "\ud800".encode("utf-8", "replace").decode(),
    ],
)
def test_hostile_texts_are_judged_and_do_no_harm(text: str) -> None:
    with quiet_parser():
        assert syntax_error(text) is None or isinstance(syntax_error(text), str)
    assert syntax_error("x = 1\n") is None


@given(st.text(max_size=100))
def test_the_syntax_filter_agrees_with_compile(text: str) -> None:
    with quiet_parser():
        found = syntax_error(text)
        try:
            compile(text, "text", "exec", flags=0x400, dont_inherit=True)  # ast.PyCF_ONLY_AST
        except (SyntaxError, ValueError):
            assert found is not None
        else:
            assert found is None


def test_the_parser_is_quiet_and_leaves_everything_as_it_was() -> None:
    assert gc.isenabled()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_parser():
            assert syntax_error("x = '\\d'\n") is None and not gc.isenabled()
    assert caught == [] and gc.isenabled()
