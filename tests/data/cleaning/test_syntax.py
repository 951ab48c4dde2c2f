"""Programs parse, other texts do not, in every language; a text made to break a parser breaks nothing."""

import ast
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.cleaning import parser
from components.data.cleaning.syntax import LANGUAGES, ParserProcess, grammars_of, python_error, quiet_parser, syntax
from components.data.documents.programming_languages import language_of

# A program that uses what is particular to its language, and something that spoils it.
PROGRAMS = {
    "a.js": (
        "const f = async ({ a = 1, ...rest }) => `x${a}` ?? <p>{rest.b}</p>;\nlabel: for (;;) break label;\n",
        "f(",
    ),
    "flow.js": (
        "// @flow\nfunction f(x: number, y: Array<string>): void {}\nexport type T = { a: string };\n",
        "f(",
    ),
    "a.ts": (
        "enum E { A = 1 }\nfunction f<T extends E>(x: T, y?: string): x is T { return <any>x!; }\n",
        "x: =",
    ),
    "a.tsx": ('const C = <T,>({ a }: { a: T }) => <div key="k">{a as any}</div>;\n', "</b>"),
    "A.java": (
        "package p;\n@X record R<T>(int a) {\n"
        '  static var m = switch (1) { case 1 -> """\n  t"""; default -> null; };\n}\n',
        "}",
    ),
    "a.c": (
        "#include <stdio.h>\n#define X(a) \\\n  a##1\n"
        "static int *f(const char *s, ...) { return (int[]){1, .2}[0] ? 0 : 0; }\n",
        "}}}} int int",
    ),
    "a.h": (
        "#pragma once\nnamespace n { template <typename T> class C : public B<T> { public: ~C() noexcept; }; }\n",
        "class { (;",
    ),
    "a.cpp": (
        "#include <vector>\nauto f = []<class T>(T &&x) requires true { return x <=> 1; };\n"
        'int operator""_k(long double);\n',
        "][ ::}} >>",
    ),
    "a.go": (
        "package p\n\nfunc F[T any](c <-chan T) (x int, err error) {\n\tgo func() { select {} }()\n\treturn\n}\n",
        "func {",
    ),
    "a.rs": (
        "#![allow(x)]\nfn f<'a, T: Fn(&'a str) -> u8>(x: T) -> impl Sized where T: 'a {\n"
        '    match 1 { 0..=9 if true => r#""#, _ => "" }\n}\n',
        "fn }",
    ),
    "a.sh": (
        "#!/bin/bash\nset -e\ncat <<EOF | while read -r x; do [[ $x =~ ^a ]] && y=${x%%.*}; done\n$(ls)\nEOF\n"
        "f() { local -a z=(1 2); }\n",
        "fi done )",
    ),
}


@pytest.fixture(scope="module")
def process() -> Iterator[ParserProcess]:
    with ParserProcess() as started:
        yield started


def share(process: ParserProcess, text: str, path: str) -> float:
    language = language_of(path)
    assert language is not None
    return process.judge(text, grammars_of(text, language, path)).share


@pytest.mark.parametrize("path", PROGRAMS)
def test_a_program_parses_and_a_broken_one_does_not(process: ParserProcess, path: str) -> None:
    program, mistake = PROGRAMS[path]
    assert share(process, program, path) == 0
    assert share(process, program + mistake + "\n", path) > 0


@pytest.mark.parametrize("path", PROGRAMS)
def test_prose_and_another_language_are_far_from_it(process: ParserProcess, path: str) -> None:
    prose = "It was the best of times; it was (they said) the worst. Don't ask: why? 100% of `it`...\n" * 20
    html = '<!DOCTYPE html>\n<html><head><title>a & b</title></head><body class="x">1 < 2<br></body>\n' * 20
    assert min(share(process, prose, path), share(process, html, path)) > 0.01


def test_one_mistake_counts_for_itself_and_says_its_line(process: ParserProcess) -> None:
    """A missing brace makes an error of the whole file; the functions in it are still whole."""
    functions = "".join(f"int f{number}(int a) {{ return a + {number}; }}\n" for number in range(50))
    found = process.judge("#ifdef A\nint g() {\n#else\nint g(int b) {\n#endif\n  return 0; }\n" + functions, ["c"])
    assert 0 < found.share < 0.02
    found = process.judge(functions + "int g( { return; }\n" + functions, ["c"])
    assert 0 < found.share < 0.02 and found.line == 51


def test_columns_hold_what_each_parser_says() -> None:
    texts = ["x = (\n", "x = 1\n", "int x = ;\n", "select 1;", "fn f() {}\n", None or ""]
    found = syntax(
        texts, ["python", "python", "c", "sql", "rust", None], ["a.py", "b.py", "c.c", "d.sql", "e.rs", None]
    )
    assert found["parser_error"].to_list() == ["'(' was never closed (line 1)", None, None, None, None, None]
    assert found["error_share"].is_not_null().to_list() == [False, False, True, False, True, False]
    assert found["error_share"][2] > 0 and found["error_line"][2] == 1 and found["error_share"][4] == 0


def test_every_language_with_a_grammar_has_a_program_here() -> None:
    assert {language_of(path) for path in PROGRAMS} | {"python"} == LANGUAGES


@pytest.mark.parametrize(
    "text",
    [
        "print 'two'\n",
        "exec code in scope\n",
        "raise ValueError, 'x'\n",
        "try:\n    pass\nexcept E, error:\n    pass\n",
        "if a <> b:\n    pass\n",
        "x = 0777\n",
        "x = 10L\n",
        "x = ur'a'\n",
        "x = `y`\n",
        "def f((a, b)):\n    pass\n",
        "f'{x' \n",
        "type X = print 'a'\n",
    ],
)
def test_python_2_and_broken_python_are_refused(process: ParserProcess, text: str) -> None:
    assert python_error(text, process) is not None


@pytest.mark.parametrize(
    "text",
    [
        "type Pair[T] = tuple[T, T]\n",
        "def first[T](items: list[T]) -> T:\n    return items[0]\n",
        "class Box[T]:\n    pass\n",
        'name = f"{items["key"]}"\n',
        "\ufeffx = 1\n",
        "match x:\n    case {'a': [1, *_]}:\n        pass\n",
    ],
)
def test_newer_python_passes_on_any_interpreter(process: ParserProcess, text: str) -> None:
    assert python_error(text, process) is None


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\0",
        "(" * 10_000,
        "-" * 100_000 + "1",
        "x = " + "1+" * 100_000 + "1",
        "\ud800",
        "f'{" * 500,
        "a" + "[0]" * 90_000,
    ],
)
def test_texts_that_exhaust_pythons_parser_are_errors(process: ParserProcess, text: str) -> None:
    with quiet_parser():
        assert python_error(text, process) is not None
    assert python_error("x = 1\n", process) is None


@given(st.text(max_size=100))
def test_python_is_what_this_interpreter_parses(process: ParserProcess, text: str) -> None:
    with quiet_parser():
        found = python_error(text, process)
        try:
            ast.parse(text.removeprefix("\ufeff"))
        except (SyntaxError, ValueError):
            assert found is not None
        else:
            assert found is None


@pytest.mark.parametrize(
    ("grammar", "text", "ends_the_process"),
    [
        ("cpp", "?&" * 20_000, False),  # steps by the square of the length, which are counted
        ("java", ",+" * 20_000, False),
        ("java", "a<" * 60_000, True),  # memory by the square, in one step
    ],
)
def test_a_text_made_to_break_a_parser_is_no_program(grammar: str, text: str, ends_the_process: bool) -> None:
    with ParserProcess() as process:
        assert process.judge("int x;\n", ["c"]).share == 0
        before = process._process
        assert process.judge(text, [grammar]).share == 1
        assert process.judge("int x;\n", ["c"]).share == 0
        assert (process._process is not before) is ends_the_process


def test_comments_within_an_error_do_not_count(process: ParserProcess) -> None:
    text = "int f( {\n" + "// a comment that is as long as a line of a comment is\n" * 50
    assert 0 < process.judge(text, ["c"]).share < 0.01


@pytest.mark.parametrize("grammar", sorted(LANGUAGES | {"tsx"}))
def test_deep_nesting_long_lines_and_control_characters_are_judged(process: ParserProcess, grammar: str) -> None:
    for text in ("({[" * 3_000, "x" * 1_000_000, '"' + "y" * 1_000_000, "\x01\x7f\n" * 1_000, "é\U0001f600\n" * 1_000):
        assert 0 <= process.judge(text, [grammar]).share <= 1
    assert process.judge("", [grammar]).share == 0


def test_the_parser_is_quiet_and_leaves_everything_as_it_was() -> None:
    assert gc.isenabled()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_parser(), ParserProcess() as process:
            assert python_error("x = '\\d'\n", process) is None and not gc.isenabled()
    assert caught == [] and gc.isenabled()


def test_no_process_is_left_behind_nor_started_for_good_python() -> None:
    with ParserProcess() as process:
        assert python_error("x = 1\n", process) is None
        assert process._process is None
        process.judge("x", ["c"])
        started = process._process
        assert started is not None and started.poll() is None
    assert started.returncode == 0


def test_a_parser_that_does_not_start_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "parser.py"
    broken.write_text("import no_such_module\n")
    monkeypatch.setattr(parser, "__file__", str(broken))
    with ParserProcess() as process, pytest.raises(RuntimeError, match="exit status 1 at its start"):
        process.judge("x", ["c"])
