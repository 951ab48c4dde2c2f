"""Whether a text is a program of its language: what its parser says against it, and how much of it makes no sense.

Python is judged by this interpreter's own parser: at 12.4 MB/s on a core it is as fast as tree-sitter (12.2), exact,
says what is wrong and where, and refuses Python 2, of which tree-sitter's grammar takes all (`print x`, 0777, 1L).
Only what it refuses for being newer than itself is looked at by tree-sitter. All else is judged by tree-sitter.
Covers: Python, JavaScript and TypeScript with JSX, Java, C, C++ (also in .h), Go, Rust, shell. Texts made to break
parsers: tree-sitter runs in a process of its own (parser.py), and a text that ends it is judged to be no program.
Not covered: names, types, whatever a compiler finds after parsing; `except A, B:` and t-strings of Python 3.14.

A text is parsed, never run.
"""

import contextlib
import gc
import json
import re
import subprocess
import symtable
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

import polars as pl

from components.data.cleaning import parser

SYNTAX_SCHEMA = pl.Schema({"parser_error": pl.String, "error_share": pl.Float64, "error_line": pl.Int64})
LANGUAGES = frozenset(parser.GRAMMARS) - {"tsx"}
_CPP_IN_HEADER = re.compile(
    r"^[ \t]*(?:class|namespace|template|using|public|private|protected)\b|\w::\w|^[ \t]*#[ \t]*include[ \t]*<\w+>",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What has no place in a text by its grammar: a share of its bytes, and the first line, counted from 1.

    `newer_python` is of a Python text without any error: it has syntax that came with 3.12.
    """

    share: float
    line: int | None
    newer_python: bool


class ParserProcess:
    """tree-sitter in a process of its own, which starts with the first question and again after it was ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._process is not None:
            self._process.kill()
        self._end()

    def judge(self, text: str, grammars: Sequence[str]) -> Verdict:
        """The verdict on a text by the best of some grammars. A text that ends the process has a place for nothing."""
        if self._process is None:
            self._process = _start()
        content = text.encode("utf-8", "surrogatepass")
        questions, answers = _pipes(self._process)
        try:
            questions.write(json.dumps({"grammars": grammars, "bytes": len(content)}).encode() + b"\n" + content)
            questions.flush()
            answer = answers.readline()
        except BrokenPipeError:
            answer = b""
        if answer:
            return Verdict(**json.loads(answer))
        self._end()
        return Verdict(share=1.0, line=None, newer_python=False)

    def _end(self) -> None:
        process, self._process = self._process, None
        # A signal is a limit of its own. An exit of its own accord, but at the end of its input, is our bug.
        if process is not None and _close(process) > 0:
            raise RuntimeError(_FAILED.format(parser.__file__, f"exit status {process.returncode}"))


_FAILED = "{} failed with {}; run it by hand to see why"


def _start() -> "subprocess.Popen[bytes]":
    """The process, once it says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-I", str(parser.__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    if _pipes(process)[1].readline() != parser.READY:
        raise RuntimeError(_FAILED.format(parser.__file__, f"exit status {_close(process)} at its start"))
    return process


def _close(process: "subprocess.Popen[bytes]") -> int:
    """The exit status of the process after the end of its input."""
    questions, answers = _pipes(process)
    with contextlib.suppress(BrokenPipeError):
        questions.close()
    answers.close()
    return process.wait()


def _pipes(process: "subprocess.Popen[bytes]") -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None and process.stdout is not None
    return process.stdin, process.stdout


def syntax(texts: Iterable[str], languages: Iterable[str | None], paths: Iterable[str | None]) -> pl.DataFrame:
    """What the parsers say (SYNTAX_SCHEMA), one row a text.

    parser_error is what is wrong with a Python text, null when nothing is; error_share and error_line are of the other
    languages. All are null for a language without a grammar.
    """
    rows: list[tuple[str | None, float | None, int | None]] = []
    with quiet_parser(), ParserProcess() as process:
        for text, language, path in zip(texts, languages, paths, strict=True):
            if language == "python":
                rows.append((python_error(text, process), None, None))
            elif language in LANGUAGES:
                verdict = process.judge(text, grammars_of(text, language, path or ""))
                rows.append((None, verdict.share, verdict.line))
            else:
                rows.append((None, None, None))
    return pl.DataFrame(rows, schema=SYNTAX_SCHEMA, orient="row")


def python_error(text: str, process: ParserProcess) -> str | None:
    """What this interpreter's parser says against a Python text, with the line; None when it parses.

    None too for what only a newer Python parses. Null bytes, and nesting deeper than the parser's stack, are errors.
    """
    text = text.removeprefix("\ufeff")
    try:
        # Makes the table of names but no tree of Python objects, which would cost a third more than all of this.
        symtable.symtable(text, "<document>", "exec")
    except SyntaxError as error:
        return None if _is_newer(text, error, process) else f"{error.msg} (line {error.lineno})"
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _is_newer(text: str, error: SyntaxError, process: ParserProcess) -> bool:
    """Without an error by tree-sitter, and with something in it that older interpreters do not know."""
    verdict = process.judge(text, ["python"])
    # Before 3.12 a replacement field could not have the quotes of its string, backslashes or comments.
    return verdict.share == 0 and (verdict.newer_python or error.msg.startswith("f-string"))


def grammars_of(text: str, language: str, path: str) -> Sequence[str]:
    """The grammars that a text of a language may follow, the likeliest first."""
    if language == "typescript":
        return ["tsx"] if path.endswith(".tsx") else ["typescript"] if path.endswith("ts") else ["typescript", "tsx"]
    if language == "javascript":
        return ["javascript", "tsx"]  # the types of Flow look like TypeScript's
    if language == "c" and not path.endswith(".c"):
        return ["cpp", "c"] if _CPP_IN_HEADER.search(text) else ["c", "cpp"]
    return [language]


@contextlib.contextmanager
def quiet_parser() -> Iterator[None]:
    """For parsing many texts: no warnings about their escapes, and no garbage collection, which finds nothing here."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if enabled:
            gc.enable()
