"""Edits of Python functions from the history of a Git revision: commits that change one function of one file.

Covers: functions and methods, dedented, before and after; merges, renames, links, submodules, new and deleted files,
which are no edits; blobs of any size and content, of which only small ones are read; a limit of commits.
Not covered: commits that change several files or functions; functions inside functions, which belong to the outer one.
"""

import ast
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

from components.core.errors import DataError
from components.data.documents.edit import Edit, text_of
from components.data.documents.programming_languages import language_of
from components.data.sources.reading.document_batch import Batch, documents
from components.data.sources.reading.files import SourceFile
from components.data.sources.reading.git_commands import AT_ONCE, contents, running, sizes
from components.data.sources.reading.tree import PathFilter

MAX_FILE_BYTES = 200_000
MAX_CHANGED_LINES = 60
MAX_CHARACTERS = 4_000
MIN_SUBJECT_WORDS = 3  # "wip" and "fix bug" ask for nothing
MAX_SUBJECT_CHARACTERS = 200
_FILE_MODES = (b"100644", b"100755")
# Nothing that a person's configuration says may change what is printed.
_LOG = (
    *("log", "-z", "--raw", "--no-abbrev", "--no-renames", "--no-merges", "--no-show-signature", "--no-notes"),
    *("--no-mailmap", "--no-color", "--no-ext-diff", "--no-textconv", "--ignore-submodules=none", "-O/dev/null"),
    "--encoding=UTF-8",
    "--format=format:%H%n%an <%ae>%n%s",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit that changed one file: its blobs before and after."""

    digest: str
    author: str
    subject: str
    path: str
    before: str
    after: str


def read(repository: Path, commit: str, path_filter: PathFilter, *, most: int) -> Iterator[tuple[Commit, Edit]]:
    """The edits of the last `most` commits that are no merges, newest first. Raises DataError for a broken history."""
    commits = (each for each in _commits(repository, commit, most) if _is_wanted(each, path_filter))
    with (
        running(repository, "cat-file", "--batch-check") as measure,
        running(repository, "cat-file", "--batch") as reader,
    ):
        while some := list(islice(commits, AT_ONCE // 2)):
            measured = sizes(measure, [each for one in some for each in (one.before, one.after)])
            pairs = zip(some, measured[::2], measured[1::2], strict=True)
            small = [one for one, *both in pairs if all(size is not None and size <= MAX_FILE_BYTES for size in both)]
            texts = contents(reader, [each for one in small for each in (one.before, one.after)])
            for one, before, after in zip(small, texts, texts, strict=True):
                if edit := edit_in(one.subject, before, after):
                    yield one, edit


def batch(changes: Iterable[tuple[Commit, Edit]], file: Callable[[str], SourceFile]) -> Batch:
    """Edits as columns; `file` says what is said of a path, its licence above all."""
    rows = [(commit, edit, file(commit.path)) for commit, edit in changes]
    return Batch(
        edits=documents(
            {
                "text": [text_of(edit) for _, edit, _ in rows],
                "path": [commit.path for commit, _, _ in rows],
                "package": [each.package for _, _, each in rows],
                "version": [commit.digest for commit, _, _ in rows],
                "licence": [each.licence for _, _, each in rows],
                "language": ["python" for _ in rows],
                "author": [commit.author for commit, _, _ in rows],
            }
        )
    )


def edit_in(subject: str, before: bytes, after: bytes) -> Edit | None:
    """The edit between two versions of a file; None unless it changed one function, and little."""
    try:
        versions = [re.sub(r"\r\n?", "\n", each.decode("utf-8")).split("\n") for each in (before, after)]
    except UnicodeDecodeError:
        return None
    old, new = versions
    first = _common(old, new)
    last = _common(old[first:][::-1], new[first:][::-1])
    changed = [(first, len(each) - last) for each in versions]
    if old == new or max(stop - start for start, stop in changed) > MAX_CHANGED_LINES:
        return None
    found = [_function_around(lines, *place) for lines, place in zip(versions, changed, strict=True)]
    if found[0] is None or found[1] is None or found[0][0] != found[1][0]:
        return None
    return Edit(subject=subject, before=found[0][1], after=found[1][1])


def _commits(repository: Path, commit: str, most: int) -> Iterator[Commit]:
    """Commits that change the content of one file, and nothing else."""
    with running(repository, *_LOG, f"--max-count={most}", commit, "--") as process:
        assert process.stdout is not None
        header: list[bytes] = []
        entries: list[tuple[bytes, bytes]] = []
        parts = _parts(process.stdout.read)
        for part in parts:
            facts = part
            if not part.startswith(b":"):  # the lines of a commit, and in their last one its first entry
                yield from _changed(header, entries)
                *header, facts = [*part.split(b"\n", 3), b""][:4]
                entries = []
            if facts:
                entries = [*entries[:1], (facts, next(parts, b""))]  # two are too many, and there may be a million
        yield from _changed(header, entries)
        if process.wait():
            raise DataError(f"git log ended with {process.returncode}: objects of the history are missing or damaged")


def _parts(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """What stands between NULs, empty parts left out."""
    rest = b""
    while chunk := read(1 << 16):
        *whole, rest = (rest + chunk).split(b"\0")
        yield from filter(None, whole)
    yield from filter(None, [rest])


def _changed(header: list[bytes], entries: list[tuple[bytes, bytes]]) -> Iterator[Commit]:
    if len(entries) != 1:
        return
    facts, path = entries[0]
    old_mode, new_mode, before, after, _ = facts.removeprefix(b":").split()
    if old_mode not in _FILE_MODES or new_mode != old_mode:
        return
    try:
        digest, author, subject, name = (each.decode("utf-8") for each in (*header, path))
    except UnicodeDecodeError:
        return
    yield Commit(digest=digest, author=author, subject=subject, path=name, before=before.decode(), after=after.decode())


def _is_wanted(commit: Commit, path_filter: PathFilter) -> bool:
    says_something = len(commit.subject.split()) >= MIN_SUBJECT_WORDS
    return (
        says_something
        and len(commit.subject) <= MAX_SUBJECT_CHARACTERS
        and commit.subject.isprintable()
        and language_of(commit.path) == "python"
        and path_filter.refusal(commit.path) is None
    )


def _common(first: list[str], second: list[str]) -> int:
    """How many lines two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _function_around(lines: list[str], start: int, stop: int) -> tuple[str, str] | None:
    """Place and name, and the text, of the function that holds the lines start to stop, decorators included."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the repository, not ours
            tree = ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    todo: list[tuple[str, ast.stmt]] = [("", node) for node in tree.body]
    while todo:
        scope, node = todo.pop()
        if isinstance(node, ast.ClassDef):
            todo += [(f"{scope}{node.name}.", child) for child in node.body]
        elif isinstance(node, ast.If | ast.Try):
            todo += [(scope, child) for child in (*node.body, *node.orelse)]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            begin = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
            assert node.end_lineno is not None
            if begin <= start and stop <= node.end_lineno:
                text = _dedented(lines[begin : node.end_lineno], lines[node.lineno - 1])
                return None if text is None else (f"{begin} {scope}{node.name}", text)
    return None


def _dedented(lines: list[str], head: str) -> str | None:
    """Lines without the margin of the line that defines the function; None where one has less, or all are too long."""
    margin = head[: len(head) - len(head.lstrip())]
    if any(line.strip() and not line.startswith(margin) for line in lines):
        return None
    text = "\n".join(line[len(margin) :].rstrip() for line in lines)
    return text if len(text) <= MAX_CHARACTERS else None
