"""Where a document came from and what became of it: source, verdicts, decision, spans, near copies, place.

Reads columns of data/raw, data/checked and data/clean by filters, never a text. Every answer is a list of plain rows.
Covers: a document by its id, by the first characters of it, or by its path.  Not covered: what training made of it.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from components.core.errors import DataError
from components.data.documents.document import PARTS
from components.data.documents.path_patterns import slashed, slashed_column
from components.lineage.chain import Held

ID_CHARACTERS = 64
MIN_PREFIX = 8
COPY_COLUMNS = ("path", "package", "version", "licence", "language", "source", "bytes")
_SHOWN = 3


def identify(reference: str, raw: Held | None) -> str:
    """The id that a reference stands for: an id, its first characters, or a path or its end.

    A whole id is taken as it is: it may have left the corpus. Raises DataError when the reference fits no document of
    the corpus, or several texts.
    """
    digits = reference.lower()
    is_hexadecimal = not set(digits) - set("0123456789abcdef")
    if is_hexadecimal and len(digits) == ID_CHARACTERS:
        return digits
    if raw is None:
        raise DataError(
            f"{reference}: there is no corpus to look it up in; give the whole id, or run `overnight cycle` first"
        )
    matches = scan(raw, PARTS).filter(pl.col("path") == reference).select("id", "path", "package", "version").collect()
    if matches.is_empty() and is_hexadecimal and len(digits) >= MIN_PREFIX:
        matches = _select(raw, pl.col("id").str.starts_with(digits))
    if matches.is_empty():
        matches = _select(raw, slashed_column(pl.col("path")).str.ends_with(f"/{slashed(reference).lstrip('/')}"))
    ids = matches["id"].unique(maintain_order=True).to_list()
    if len(ids) == 1:
        return str(ids[0])
    if ids:
        raise DataError(f"{reference}: fits {len(ids)} documents ({_some(matches)}); give the id of one of them")
    hint = f", and an id is looked up from {MIN_PREFIX} characters on" if is_hexadecimal else ""
    raise DataError(
        f"{reference}: fits no document of the corpus{_left(reference, raw)}; give an id or a path in it{hint}"
    )


def scan(held: Held, pattern: str) -> pl.LazyFrame:
    """The tables of an artifact whose names match, below each other."""
    return pl.scan_parquet([path for _, path in held.matching(pattern)])


def table(held: Held, name: str, condition: pl.Expr) -> list[dict[str, Any]]:
    """The rows of one table that a condition holds for, without any text; none when the artifact has no such table."""
    if name not in held.files:
        return []
    frame = pl.scan_parquet(held.files[name]).filter(condition)
    return frame.select(pl.exclude("text")).collect().to_dicts()


def copies(raw: Held, identity: str) -> list[dict[str, Any]]:
    """Every place that the text came from: path, package, version, licence, language, source, bytes."""
    frame = scan(raw, PARTS).filter(pl.col("id") == identity).select(*COPY_COLUMNS).sort("source", "package", "path")
    return frame.collect().to_dicts()


def quarantined(checked: Held, identity: str) -> list[dict[str, Any]]:
    """path, rule and value for every rule that the document broke."""
    rows = table(checked, "quarantine.parquet", pl.col("id") == identity)
    return [{name: row[name] for name in ("path", "rule", "value")} for row in rows]


def is_in(held: Held, identity: str) -> bool:
    """Whether a row of the artifact's documents has this id."""
    return bool(scan(held, PARTS).filter(pl.col("id") == identity).select(pl.len()).collect().item())


def place(clean: Held, identity: str) -> dict[str, Any] | None:
    """shard, row in it and cluster of a document that stayed; None for one that did not."""
    for name, path in clean.matching(PARTS):
        rows = pl.scan_parquet(path).select("id", "cluster").with_row_index("row").filter(pl.col("id") == identity)
        for row in rows.collect().iter_rows(named=True):
            return {"shard": name, "row": row["row"], "cluster": row["cluster"]}
    return None


def drops(clean: Held, identity: str) -> list[dict[str, Any]]:
    """path, reason and detail of every row of this id that did not stay."""
    rows = table(clean, "drops.parquet", pl.col("id") == identity)
    return [{name: row[name] for name in ("path", "reason", "detail")} for row in rows]


def redactions(clean: Held, identity: str) -> list[dict[str, Any]]:
    """kind, start and end (characters of the original) and placeholder of what was redacted in a document."""
    rows = table(clean, "redactions.parquet", pl.col("id") == identity)
    return [{name: value for name, value in row.items() if name != "id"} for row in rows]


def near_copies(clean: Held, identity: str) -> list[dict[str, Any]]:
    """The other members of the document's cluster: id, path, and whether they stay in the corpus.

    A dropped document names the one that stays in its place; whoever is named by the same ones is in the cluster.
    """
    dropped = (
        pl.scan_parquet(clean.files["drops.parquet"])
        .filter(pl.col("reason") == "near_duplicate")
        .select("id", "path", pl.col("detail").str.extract(r"([0-9a-f]{64})").alias("kept"))
        .collect()
    )
    leaders = [identity, *dropped.filter(pl.col("id") == identity)["kept"].drop_nulls()]
    kept = scan(clean, PARTS).select("id", "path", "cluster").collect()
    clusters = kept.filter(pl.col("id").is_in(leaders))["cluster"].unique()
    staying = kept.filter(pl.col("cluster").is_in(clusters.implode()))
    going = dropped.filter(pl.col("kept").is_in(staying["id"].implode()))
    both = pl.concat(
        [staying.select("id", "path", stays=pl.lit(True)), going.select("id", "path", stays=pl.lit(False))]
    )
    return both.filter(pl.col("id") != identity).unique(["id", "path"]).sort("id", "path").to_dicts()


def decisions(raw: Held | None, clean: Held | None, identities: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Where documents came from and what cleaning decided, by id copies, drops, redactions, contaminated, cluster.

    One look into each table for all of them; empty where a stage has not run.
    """
    wanted = pl.col("id").is_in(list(identities))
    rows: dict[str, list[dict[str, Any]]] = {
        "copies": scan(raw, PARTS).filter(wanted).select("id", *COPY_COLUMNS).sort("path").collect().to_dicts()
        if raw
        else [],
        "drops": table(clean, "drops.parquet", wanted) if clean else [],
        "redactions": table(clean, "redactions.parquet", wanted) if clean else [],
        "contaminated": table(clean, "contaminated.parquet", wanted) if clean else [],
    }
    kept = scan(clean, PARTS).filter(wanted).select("id", "cluster").collect().rows() if clean else []
    by_id: dict[str, dict[str, Any]] = {
        each: {name: [] for name in rows} | {"cluster": dict(kept).get(each)} for each in identities
    }
    for name, listed in rows.items():
        for row in listed:
            by_id[row.pop("id")][name].append(row)
    return by_id


def _select(raw: Held, condition: pl.Expr) -> pl.DataFrame:
    return scan(raw, PARTS).filter(condition).select("id", "path", "package", "version").collect()


def _some(matches: pl.DataFrame) -> str:
    """The first few documents, for one line."""
    rows: Sequence[dict[str, Any]] = matches.unique("id", maintain_order=True).head(_SHOWN).to_dicts()
    shown = ", ".join(
        f"{row['id'][:12]} {row['path']} of {row['package']} {row['version'] or ''}".strip() for row in rows
    )
    return shown + (", ..." if matches["id"].n_unique() > _SHOWN else "")


def _left(reference: str, raw: Held) -> str:
    """Why ingest left a file of that path, if it did."""
    rows = table(raw, "left.parquet", pl.col("path") == reference)
    return f" (ingest left it: {rows[0]['reason']})" if rows else ""
