"""What every source yields: a batch of documents, and beside it what could not become one, with the reason.

A source says what it found and leaves the judging to ingest, which alone normalises licences, applies the allow list,
opt-outs, caps and weights, and computes ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from components.core.errors import one_line

# `licence` as it was declared (a name, an SPDX expression or a whole text), null when nothing was said; `author` as
# `Name`, `mail` or `Name <mail>`, null when it is not known. `path` is relative to the source, never to this machine.
BATCH_SCHEMA = pl.Schema(
    {
        "text": pl.String,
        "path": pl.String,
        "package": pl.String,
        "version": pl.String,
        "licence": pl.String,
        "language": pl.String,
        "author": pl.String,
    }
)
# `reason` is one word of a small set (it is counted), `detail` says the rest in one line.
LEFT_SCHEMA = pl.Schema({"path": pl.String, "reason": pl.String, "detail": pl.String})
# Text that a source gathers before it yields: large enough for columns, small enough for a few in memory at once.
BATCH_BYTES = 8_000_000
BATCH_ROWS = 4_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents (BATCH_SCHEMA) and what was left (LEFT_SCHEMA); either may have no rows.

    edits   of a history, likewise BATCH_SCHEMA, their texts those of components.data.documents.edit
    """

    documents: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=BATCH_SCHEMA))
    left: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LEFT_SCHEMA))
    edits: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=BATCH_SCHEMA))


def left_rows(rows: Sequence[tuple[str, str, str]]) -> pl.DataFrame:
    """(path, reason, detail) tuples as a table of LEFT_SCHEMA; a detail becomes one line, whatever it quotes."""
    records = [(path, reason, one_line(detail)) for path, reason, detail in rows]
    return pl.DataFrame(records, schema=LEFT_SCHEMA, orient="row")


def documents(columns: Mapping[str, Sequence[str | None]]) -> pl.DataFrame:
    """Columns of equal length as a table of BATCH_SCHEMA; columns that are not given are null."""
    rows = len(columns["text"])
    return pl.DataFrame(
        [pl.Series(name, columns.get(name, [None] * rows), dtype=kind) for name, kind in BATCH_SCHEMA.items()]
    )
