"""An edit of a function as one text, so that it goes through the stages as documents do: what is private in it is
redacted, and one value has one placeholder in both versions.

edits.parquet   rows of components.data.documents.document.SCHEMA: `text` is that of `text_of`, `path` the edited file,
                `version` the commit; sorted by id. Absent where no source was asked for its history.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from components.core import artifact
from components.data.documents.document import SCHEMA

EDITS = "edits.parquet"
# On a line of its own, so that no rule of redaction sees two parts in one line. No program holds it.
_BETWEEN = "\n\0\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A function before and after one commit, dedented, and the commit's subject."""

    subject: str
    before: str
    after: str


def text_of(edit: Edit) -> str:
    """The edit as one text."""
    return _BETWEEN.join((edit.subject, edit.before, edit.after))


def edit_of(text: str) -> Edit | None:
    """The edit of such a text; None where a redaction went from one part into another."""
    match text.split(_BETWEEN):
        case [subject, before, after]:
            return Edit(subject=subject, before=before, after=after)
    return None


def read_edits(directory: Path) -> pl.DataFrame | None:
    """The edits of an artifact; None where it has no table of them."""
    return pl.read_parquet(directory / EDITS) if artifact.files(directory, EDITS) else None


def in_order(edits: pl.DataFrame) -> pl.DataFrame:
    """Each edit once (a commit may stand on two branches), sorted by id."""
    return edits.select(SCHEMA.names()).cast(SCHEMA).sort("id", "path", "version").unique("id", maintain_order=True)
