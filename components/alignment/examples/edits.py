"""Edits of functions from the history of Git sources: the subject of a commit and the old function are the prompt.

Reads   data/clean (edits.parquet, where a source was asked for its history) and the documents of the training split
Gives   edits in the order of their ids, which are hashes: any prefix is a fair sample
Covers: edits of files that are documents of the training split today, so that whatever keeps a document out (licence,
opt-out, filters, copies, validation, evaluation items) keeps its edits out; functions that are held out or asked for
preferences, no version of which is shown.
Not covered: a function that had another name or docstring when it was edited, and is held out under its new one.
"""

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from components.alignment.examples.functions import extract, use_of
from components.alignment.examples.instruction import Instruction
from components.data.documents.edit import edit_of, read_edits

ASK_EDIT = "Change this function: "
_NAME = re.compile(r"^(?:async )?def (\w+)", re.MULTILINE)


def edits(source: Path, tokens: Path) -> Iterator[Instruction]:
    """The edits that may be learned. Lazy: each is parsed as it is asked for."""
    table = read_edits(source)
    if table is None:
        return
    files = pl.read_parquet(tokens / "train.documents.parquet", columns=["id", "path", "source"])
    files = files.rename({"id": "document"}).unique(["path", "source"], keep="first", maintain_order=True)
    for text, document in table.join(files, on=["path", "source"]).sort("id").select("text", "document").iter_rows():
        edit = edit_of(text)
        # All that changed may have been redacted; and an end that was cut off would leave the answer in the prompt.
        if edit is None or edit.after in edit.before:
            continue
        name = _NAME.search(edit.after)
        if name is not None and all(_may_be_learned(version) for version in (edit.before, edit.after)):
            yield Instruction(
                name=name[1],
                prompt=f"{ASK_EDIT}{edit.subject}\n\n{edit.before}",
                answer=edit.after,
                document=document,
                kind="edit",
            )


def _may_be_learned(function: str) -> bool:
    """Whether a version parses, redacted as it is, and is no function with another use, as a method or by itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(function)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(
        use_of(each.prompt, runnable=runnable) == "tuning"
        for each in extract(function, "")
        for runnable in {False, bool(each.examples)}
    )
