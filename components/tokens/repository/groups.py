"""Which documents of a corpus follow each other as files of one package, and what stands between them.

Of the near duplicates in a package one can be in a group: the others would be copied from it. So would planted canaries
of one another, whose exposure is measured (components.data.documents.canaries): they stand alone.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import polars as pl

from components.data.cleaning.redact import find_all, replace
from components.data.config import RedactConfig
from components.data.documents.canaries import PACKAGE as CANARIES
from components.tokens.repository.imports import reading_order
from components.tokens.shards.split import draw

PRIVATE: Final = RedactConfig(kinds=("email", "ip"))


def may_stand_in_groups(documents: pl.DataFrame) -> pl.Series:
    """True where a document (package) is a file of a package, shape (documents,)."""
    return documents.select((pl.col("package").fill_null("") != "") & (pl.col("package") != CANARIES)).to_series()


def groups_of(documents: pl.DataFrame, *, share: float, limit_tokens: int, seed: int) -> list[list[int]]:
    """Rows of each group, in the order in which they are read; groups of a package one after another.

    documents       id, path, package, cluster, imports, tokens
    share           of the groups, drawn by a hash of the first document's id: a corpus of one package has its share too
    limit_tokens    of a group; a document beyond it stands alone, as does one that is left alone
    """
    drawn: list[list[int]] = []
    files = documents.with_row_index("row").unique(["package", "cluster"], keep="first", maintain_order=True)
    for _, part in files.sort("package", maintain_order=True).group_by("package", maintain_order=True):
        order = reading_order(part["path"].to_list(), part["imports"].to_list())
        sorted_part = part[order]
        for start, stop in _cut(sorted_part["tokens"].to_list(), limit_tokens):
            if stop - start > 1 and draw(sorted_part["id"][start], seed, "repository") < share:
                drawn.append(sorted_part["row"][start:stop].to_list())
    return drawn


def path_lines(paths: Sequence[str]) -> list[str]:
    """Paths as they are written above files: each on one line, mail and IP addresses replaced as in texts."""
    lines = pl.Series([" ".join(path.splitlines()) for path in paths], dtype=pl.String)
    redacted = {row: replace(lines[row], redactions) for row, redactions in find_all(lines, PRIVATE)}
    return [redacted.get(row, line) for row, line in enumerate(lines.to_list())]


def _cut(sizes: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive runs of at most `limit` in all, or of one."""
    start, total = 0, 0
    for row, size in enumerate(sizes):
        if row > start and total + size > limit:
            yield start, row
            start, total = row, 0
        total += size
    if sizes:
        yield start, len(sizes)
