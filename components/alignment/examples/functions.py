"""Functions of the corpus as instructions: signature and docstring are the prompt, the body is the answer.

Reads   data/clean (id, text, language) and the ids of the training split (data/tokens/train.documents.parquet)
Gives   pairs in the order of the documents' ids, which are hashes: any prefix is a fair sample
Covers: functions and methods with a docstring and a body that does something, dedented; the three uses (tuning,
heldout, pairs) are disjoint by a hash of the prompt, so that equal prompts never meet in two of them.
Not covered: functions inside functions, bodies whose strings are indented less than the code, other languages.
"""

import ast
import hashlib
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path

import polars as pl

from components.alignment.examples.examples import examples_of
from components.alignment.examples.instruction import Instruction, Use
from components.alignment.examples.names import module_names
from components.data.documents.document import row_groups

# Prompts with examples are scarce, and only the verifier of preferences has a use for them.
SHARES: dict[bool, dict[Use, float]] = {
    False: {"tuning": 0.75, "heldout": 0.05, "pairs": 0.20},
    True: {"tuning": 0.20, "heldout": 0.05, "pairs": 0.75},
}
MAX_CHARACTERS = 2000


def use_of(prompt: str, *, runnable: bool) -> Use:
    """Which of the disjoint uses a prompt belongs to, by its hash."""
    point = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8]) / 2**64
    for use, share in SHARES[runnable].items():
        if point < share:
            return use
        point -= share
    return "pairs"


def extract(text: str, document: str) -> list[Instruction]:
    """The instruction pairs of one Python file; none when it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the corpus, not ours: invalid escapes and the like
            tree = ast.parse(text)
            known = module_names(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    lines = text.splitlines()
    preamble = _standard_imports(tree)
    instructions = []
    for node, is_method in _functions(tree):
        parts = _cut(node, lines)
        docstring = ast.get_docstring(node)
        if parts is None or docstring is None:
            continue
        testable = not is_method and not node.decorator_list and isinstance(node, ast.FunctionDef)
        examples = examples_of(docstring, node.name) if testable else ()
        instructions.append(
            Instruction(
                document=document,
                name=node.name,
                prompt=parts[0],
                answer=parts[1],
                examples=examples,
                use=use_of(parts[0], runnable=bool(examples)),
                preamble=preamble,
                known_names=known,
            )
        )
    return instructions


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(tree: ast.Module) -> Iterator[tuple[Function, bool]]:
    """Functions and methods in the order of the file, without those inside functions; True for a method."""
    todo: list[tuple[ast.stmt, bool]] = [(node, False) for node in reversed(tree.body)]
    while todo:
        node, in_class = todo.pop()
        if isinstance(node, Function):
            yield node, in_class
        elif isinstance(node, ast.ClassDef | ast.If | ast.Try):
            inside = in_class or isinstance(node, ast.ClassDef)
            todo.extend((child, inside) for child in reversed([*node.body, *getattr(node, "orelse", [])]))


def _cut(node: Function, lines: list[str]) -> tuple[str, str] | None:
    """Signature with docstring, and body, dedented; None where they share a line, say nothing or are too long."""
    first = node.body[0]
    if len(node.body) < 2 or not _is_docstring(first) or not does_something(node.body[1:]):
        return None
    assert first.end_lineno is not None and node.end_lineno is not None
    if first.lineno == node.lineno or first_line(node.body[1]) <= first.end_lineno:
        return None
    whole = lines[node.lineno - 1 : node.end_lineno]
    margin = " " * node.col_offset
    if any(line.strip() and not line.startswith(margin) for line in whole):
        return None
    dedented = [line[len(margin) :].rstrip() for line in whole]
    split = first.end_lineno - node.lineno + 1
    prompt, answer = "\n".join(dedented[:split]), "\n".join(dedented[split:]).strip("\n")
    if len(prompt) > MAX_CHARACTERS or len(answer) > MAX_CHARACTERS or "\t" in prompt:
        return None
    return prompt, answer


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def first_line(node: ast.stmt) -> int:
    """The line that a statement begins in, decorators included."""
    if isinstance(node, Function | ast.ClassDef):
        return min([node.lineno, *(each.lineno for each in node.decorator_list)])
    return node.lineno


def does_something(body: list[ast.stmt]) -> bool:
    """False for `pass`, `...` and `raise NotImplementedError` alone."""
    if len(body) > 1:
        return True
    only = body[0]
    if isinstance(only, ast.Raise):
        return only.exc is not None and "NotImplemented" not in ast.dump(only.exc)
    return not (isinstance(only, ast.Pass) or (isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant)))


def _standard_imports(tree: ast.Module) -> str:
    """The module's own imports from the standard library: what its functions may need when they run alone."""
    kept = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            wanted = all(alias.name.split(".")[0] in sys.stdlib_module_names for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            wanted = node.level == 0 and (node.module or "").split(".")[0] in sys.stdlib_module_names
        else:
            continue
        if wanted:
            kept.append(ast.unparse(node))
    return "\n".join(kept)


def read_functions(source: Path, tokens: Path, uses: Collection[Use]) -> Iterator[Instruction]:
    """Pairs of some uses from the training split, each prompt once; documents with examples first for preferences.

    Lazy: documents are parsed as pairs are asked for.
    """
    ids = pl.read_parquet(tokens / "train.documents.parquet", columns=["id"])
    frames: Iterable[pl.DataFrame] = (
        _candidates(frame, ids) for _, _, frame in row_groups(source, columns=["id", "text", "language"])
    )
    if "pairs" in uses:
        both = [frame.with_columns(first=pl.col("text").str.contains(">>> ", literal=True)) for frame in frames]
        frames = chain((each.filter("first") for each in both), (each.filter(~pl.col("first")) for each in both))
    seen: set[str] = set()
    for frame in frames:
        for document, text in frame.select("id", "text").iter_rows():
            for instruction in extract(text, document):
                if instruction.use in uses and instruction.prompt not in seen:
                    seen.add(instruction.prompt)
                    yield instruction


def _candidates(frame: pl.DataFrame, ids: pl.DataFrame) -> pl.DataFrame:
    """Rows of the training split that may hold a function with a docstring: a cheap look before the parser's."""
    text = pl.col("text")
    wanted = text.str.contains("def ", literal=True) & text.str.contains(r'"""|\'\'\'')
    return frame.filter(pl.col("language") == "python", wanted).join(ids, on="id", how="semi").select("id", "text")
