"""Places in held-out documents where a model is asked to write: drawn by a seed, equal for every model."""

import ast
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

MIN_LINE_CHARACTERS = 4
CONTEXT_CHARACTERS = 8_192

Candidate = TypeVar("Candidate")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinePlace:
    """A missing line: what stands before it, the line without its end, what stands after it."""

    item: str
    prefix: str
    line: str
    suffix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionPlace:
    """A function whose body is missing: the document up to the body, and of that the function's own head."""

    item: str
    prefix: str
    head: str


def line_places(ids: Sequence[str], texts: Sequence[str], limit: int, seed: int) -> list[LinePlace]:
    """At most `limit` lines, drawn from all that follow a line which is not blank; `item` is document:line.

    Blank and very short lines are not asked for: a closing bracket says nothing about a model.
    """
    lines_of = [text.split("\n") for text in texts]
    candidates = [
        (document, number)
        for document, lines in enumerate(lines_of)
        for number in range(1, len(lines))
        if len(lines[number].strip()) >= MIN_LINE_CHARACTERS and lines[number - 1].strip()
    ]
    places = []
    for document, number in _draw(candidates, limit, seed):
        lines = lines_of[document]
        places.append(
            LinePlace(
                item=f"{ids[document]}:{number + 1}",
                prefix=("\n".join(lines[:number]) + "\n")[-CONTEXT_CHARACTERS:],
                line=lines[number],
                suffix="\n".join(["", *lines[number + 1 :]])[:CONTEXT_CHARACTERS],
            )
        )
    return places


def function_places(ids: Sequence[str], texts: Sequence[str], limit: int, seed: int) -> list[FunctionPlace]:
    """At most `limit` functions at the top level of Python sources, cut after signature and docstring."""
    candidates = [(document, span) for document, text in enumerate(texts) for span in _heads(text)]
    places = []
    for document, (start, body) in _draw(candidates, limit, seed):
        lines = texts[document].split("\n")
        places.append(
            FunctionPlace(
                item=f"{ids[document]}:{start + 1}",
                prefix=("\n".join(lines[:body]) + "\n")[-CONTEXT_CHARACTERS:],
                head="\n".join(lines[start:body]) + "\n",
            )
        )
    return places


def parse(source: str) -> ast.Module | None:
    """The syntax tree of a source, None where Python's parser does not accept it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def has_body(source: str) -> bool:
    """True where a source parses and is one function with a statement beside its docstring."""
    tree = parse(source)
    if tree is None or len(tree.body) != 1 or not isinstance(function := tree.body[0], ast.FunctionDef):
        return False
    return len(function.body) > (ast.get_docstring(function, clean=False) is not None)


def indented(text: str) -> str:
    """A completion up to where its block ends: before the first line that begins at the margin."""
    lines = text.split("\n")
    end = next((number for number, line in enumerate(lines) if line.strip() and not line[0].isspace()), len(lines))
    return "\n".join(lines[:end])


def _heads(text: str) -> Iterator[tuple[int, int]]:
    """Line of `def` and first line after signature and docstring, from 0, of each function that has more than those."""
    tree = None if "\r" in text else parse(text)  # the parser ends lines at \r, too
    for node in tree.body if tree else ():
        if not isinstance(node, ast.FunctionDef):
            continue
        documented = ast.get_docstring(node, clean=False) is not None
        if len(node.body) > documented:
            head = node.body[0].end_lineno if documented else node.body[0].lineno - 1
            if head is not None and node.lineno <= head < node.body[documented].lineno:
                yield node.lineno - 1, head


def _draw(candidates: Sequence[Candidate], limit: int, seed: int) -> list[Candidate]:
    """At most `limit` candidates in their own order."""
    order = np.random.default_rng(seed).permutation(len(candidates))[:limit]
    return [candidates[index] for index in np.sort(order)]
