"""Parses texts by tree-sitter, in a process of its own, which syntax.py starts by the path of this file.

Reads   standard input: a line of JSON {grammars, bytes}, then that many bytes of UTF-8; again and again
Writes  standard output: `ready`, then a line of JSON {share, line, newer_python} for each
Covers: texts made to break parsers. 30 kB of `a<a<a<...` as Java want 2 GB at the end of the text, where the library
asks nobody whether to go on; NUL in shell loops for ever. The kernel ends the process at its limit of memory, or of
seconds for one text, and nothing else is harmed.

Imports the standard library and tree-sitter alone, so that it starts in a tenth of a second.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Iterable
from typing import Any, BinaryIO

import tree_sitter_bash
import tree_sitter_c
import tree_sitter_cpp
import tree_sitter_go
import tree_sitter_java
import tree_sitter_javascript
import tree_sitter_python
import tree_sitter_rust
import tree_sitter_typescript
from tree_sitter import Language, Node, Parser, Query, QueryCursor

GRAMMARS = {
    "c": tree_sitter_c.language,
    "cpp": tree_sitter_cpp.language,
    "go": tree_sitter_go.language,
    "java": tree_sitter_java.language,
    "javascript": tree_sitter_javascript.language,
    "python": tree_sitter_python.language,
    "rust": tree_sitter_rust.language,
    "shell": tree_sitter_bash.language,
    "tsx": tree_sitter_typescript.language_tsx,
    "typescript": tree_sitter_typescript.language_typescript,
}
READY = b"ready\n"
# The library asks every hundred steps whether to go on. Programs need at most 0.023 of these per byte (2,300 files in
# nine languages); `?&?&?&...` as C++ needs 10 per byte for 4,000 bytes, and more the longer it is. Steps are the same
# on every machine; the limits below end what has few and long steps.
_CHECKS = 100
_CHECKS_PER_BYTE = 0.1
_READ_BYTES = 1 << 16
_MAX_SECONDS = 5.0
_MAX_MEMORY_BYTES = 1 << 30
_NOT_PARSED: tuple[float, int | None] = (1.0, None)
# Syntax that Python 3.12 brought, which no Python 2 program has.
_NEWER_PYTHON = (
    "[(type_alias_statement) (function_definition type_parameters: (_)) (class_definition type_parameters: (_))] @new"
)


def judge(content: bytes, grammars: Iterable[str]) -> dict[str, Any]:
    """What has no place in a text by the grammar that fits it best: a share of its bytes, and the first line.

    `newer_python`: whether a Python text without any error has syntax of Python 3.12. A parse that takes too many
    steps finds a place for nothing.
    """
    best: tuple[float, int | None] = _NOT_PARSED
    newer = False
    for grammar in grammars:
        root = parse(content, grammar)
        if root is None:
            continue
        if not root.has_error:
            best = 0.0, None
            newer = grammar == "python" and _has_newer_syntax(root)
            break
        wrong_bytes, line = misplaced(root)
        best = min(best, (min(1.0, wrong_bytes / len(content)), line), key=lambda each: each[0])
    return {"share": best[0], "line": best[1], "newer_python": newer}


def parse(content: bytes, grammar: str) -> Node | None:
    """The root of the syntax tree; None when the parse took too many steps."""
    steps, most = 0, _CHECKS + int(len(content) * _CHECKS_PER_BYTE)

    def too_many(_offset: int, _has_error: bool) -> bool:
        nonlocal steps
        steps += 1
        return steps > most

    def read(offset: int, _point: object) -> bytes:
        return content[offset : offset + _READ_BYTES]

    try:
        return Parser(Language(GRAMMARS[grammar]())).parse(read, progress_callback=too_many).root_node
    except ValueError:  # the library's way to say that it was told to stop
        return None


def misplaced(root: Node) -> tuple[int, int]:
    """Bytes of the tokens that stand in an error themselves, one for each that is missing, and the first line.

    Statements that are whole within an error do not count: one brace that a macro hides makes an error of the file.
    Only branches with an error are walked.
    """
    wrong_bytes, line = 0, root.end_point.row
    waiting = [(root, False)]
    while waiting:
        node, in_error = waiting.pop()
        if node.is_missing or ((node.is_error or in_error) and not node.child_count and not node.is_extra):
            wrong_bytes += max(1, node.end_byte - node.start_byte)
            line = min(line, node.start_point.row)
        elif node.has_error:
            waiting += [(child, node.is_error) for child in node.children]
    return wrong_bytes, line + 1


def _has_newer_syntax(root: Node) -> bool:
    return bool(QueryCursor(Query(Language(GRAMMARS["python"]()), _NEWER_PYTHON)).captures(root))


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there are no more questions. The kernel's default for the alarm is to end the process."""
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    answers.write(READY)
    answers.flush()
    while header := questions.readline():
        question = json.loads(header)
        content = questions.read(question["bytes"])
        signal.setitimer(signal.ITIMER_VIRTUAL, _MAX_SECONDS)
        answer = judge(content, question["grammars"])
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer)
    except MemoryError:  # the same end as where the library itself finds no memory
        os.abort()
