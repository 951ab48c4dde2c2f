"""Places in held-out documents where a model is asked to write: drawn by a seed, equal for every model."""

import ast
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

import numpy as np

MIN_LINE_CHARACTERS = 4
CONTEXT_CHARACTERS = 8_192
# What 64 tokens hold, so that a model can write the whole of it.
MAX_BLOCK_CHARACTERS = 192
MAX_BLOCK_LINES = 6
TAB_CHARACTERS = 8

Candidate = TypeVar("Candidate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A passage that is missing from a document: characters `start` to `stop` of its text."""

    item: str
    text: str
    start: int
    stop: int

    @property
    def prefix(self) -> str:
        """What stands before the passage, from not too far away."""
        return self.text[max(0, self.start - CONTEXT_CHARACTERS) : self.start]

    @property
    def missing(self) -> str:
        """The passage."""
        return self.text[self.start : self.stop]

    @property
    def suffix(self) -> str:
        """What stands after the passage, to not too far away."""
        return self.text[self.stop : self.stop + CONTEXT_CHARACTERS]

    def filled(self, passage: str) -> str:
        """The document with another passage."""
        return self.text[: self.start] + passage + self.text[self.stop :]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionPlace:
    """A function whose body is missing: the document up to the body, and of that the function's own head."""

    item: str
    prefix: str
    head: str


def line_places(ids: Sequence[str], texts: Sequence[str], limit: int, seed: int) -> list[Place]:
    """At most `limit` lines, drawn from all that follow a line which is not blank; `item` is document:line.

    Blank and very short lines are not asked for: a closing bracket says nothing about a model.
    """
    lines_of = [text.split("\n") for text in texts]
    candidates = [(document, first, first) for document, lines in enumerate(lines_of) for first in _asked_for(lines)]
    return _of_lines(ids, texts, lines_of, _draw(candidates, limit, seed))


def block_places(ids: Sequence[str], texts: Sequence[str], limit: int, seed: int) -> list[Place]:
    """At most `limit` blocks: all lines that are indented deeper than the line before them, in any language; `item` is
    document:first-last. Blocks of one line or of more than a model is given room for are not asked for."""
    lines_of = [text.split("\n") for text in texts]
    candidates = [(document, *block) for document, lines in enumerate(lines_of) for block in _blocks(lines)]
    return _of_lines(ids, texts, lines_of, _draw(candidates, limit, seed))


def multi_line_places(ids: Sequence[str], texts: Sequence[str], limit: int, seed: int) -> list[Place]:
    """At most `limit` runs of lines, each from a line that `line_places` might ask for; `item` is document:first-last.

    Every run of 2 to MAX_BLOCK_LINES lines is as likely as any other, up to MAX_BLOCK_CHARACTERS.
    """
    lines_of = [text.split("\n") for text in texts]
    candidates = [
        (document, first, first + more)
        for document, lines in enumerate(lines_of)
        for first in _asked_for(lines)
        for more in range(1, MAX_BLOCK_LINES)
        if first + more < len(lines) and lines[first + more].strip() and _fits(lines[first : first + more + 1])
    ]
    return _of_lines(ids, texts, lines_of, _draw(candidates, limit, seed))


def span_places(ids: Sequence[str], texts: Sequence[str], limit: int, seed: int) -> list[Place]:
    """At most `limit` spans that begin at any character and hold 1 to MAX_BLOCK_CHARACTERS (Bavarian 2022,
    arXiv:2207.14255, section 3, where spans have any length); `item` is document:start-stop. Blank ones are left out.
    """
    ends = np.cumsum([len(text) for text in texts])
    if not len(ends) or not ends[-1]:
        return []
    generator = np.random.default_rng(seed)
    begins = np.unique(generator.integers(ends[-1], size=limit))
    lengths = generator.integers(1, MAX_BLOCK_CHARACTERS + 1, size=len(begins))
    places = []
    for begin, length in zip(begins, lengths, strict=True):
        document = int(np.searchsorted(ends, begin, side="right"))
        text = texts[document]
        start = int(begin - ends[document]) + len(text)
        stop = min(start + int(length), len(text))
        places.append(Place(item=f"{ids[document]}:{start}-{stop}", text=text, start=start, stop=stop))
    return [place for place in places if place.missing.strip()]


def _of_lines(
    ids: Sequence[str], texts: Sequence[str], lines_of: Sequence[list[str]], chosen: Iterable[tuple[int, int, int]]
) -> list[Place]:
    """Places of (document, first line, last line), both counted from 0; without the end of the last line."""
    places = []
    for document, first, last in chosen:
        lines = lines_of[document]
        *_, start = accumulate((len(line) + 1 for line in lines[:first]), initial=0)
        name = f"{first + 1}" if first == last else f"{first + 1}-{last + 1}"
        stop = start + len("\n".join(lines[first : last + 1]))
        places.append(Place(item=f"{ids[document]}:{name}", text=texts[document], start=start, stop=stop))
    return places


def _asked_for(lines: Sequence[str]) -> Iterator[int]:
    for number in range(1, len(lines)):
        if len(lines[number].strip()) >= MIN_LINE_CHARACTERS and lines[number - 1].strip():
            yield number


def _blocks(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """First and last line of each block that is asked for, counted from 0."""
    for first in range(1, len(lines)):
        opener = lines[first - 1]
        if not opener.strip() or not lines[first].strip() or depth(lines[first]) <= depth(opener):
            continue
        last = first
        for number in range(first + 1, len(lines)):
            if lines[number].strip():
                if depth(lines[number]) <= depth(opener):
                    break
                last = number
            if last - first >= MAX_BLOCK_LINES:
                break
        if last > first and _fits(lines[first : last + 1]):
            yield first, last


def _fits(lines: Sequence[str]) -> bool:
    return len(lines) <= MAX_BLOCK_LINES and len("\n".join(lines)) <= MAX_BLOCK_CHARACTERS


def depth(line: str) -> int:
    """Columns that a line is indented by."""
    expanded = line.expandtabs(TAB_CHARACTERS)
    return len(expanded) - len(expanded.lstrip())


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


def indented(text: str, margin: int = 0) -> str:
    """A completion up to where its block ends: before the first line that is indented by `margin` columns or less."""
    lines = text.split("\n")
    end = next((number for number, line in enumerate(lines) if line.strip() and depth(line) <= margin), len(lines))
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
