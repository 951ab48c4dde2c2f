"""What a corpus is made of, before and after cleaning: sizes, languages, licences, sources, what left it and why.

`summary` describes one side from its statistics: check_raw and check_clean each leave one (summary.json), and
components.data.contracts.drift compares those of two cycles. `profile` puts both sides and clean's decisions together
(profile.json, which reports/profile.html draws). Pure functions over columns; the same rows give the same JSON.

Histograms have fixed fine bins, so that two of them can be laid on each other and made coarser: four a doubling for
counts (bin 0 holds values below 1), fifty for shares.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

SUMMARY = "summary.json"
PROFILE = "profile.json"
LOG, SHARE = "log", "share"
SCALES = {
    "text_bytes": LOG,
    "lines": LOG,
    "mean_line_characters": LOG,
    "max_line_characters": LOG,
    "alphanumeric_share": SHARE,
    "redactions": LOG,
}
VALUES = ("language", "licence", "source", "package")
QUANTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)
_EDGES = {
    LOG: np.concatenate([[0.0], np.exp2(np.arange(0, 4 * 44 + 1) / 4)]),
    SHARE: np.arange(50) / 50,
}
_VALUES_KEPT = 200
_SHOWN = 20
_EXAMPLES = 5
NONE = "(none)"
OTHERS = "(others)"


def edges(scale: str, first: int, count: int) -> list[float]:
    """The lower edges of `count` bins from bin `first` on, and the upper edge of the last."""
    every: NDArray[np.float64] = np.append(_EDGES[scale], 1.0 if scale == SHARE else np.inf)
    return [float(each) for each in every[first : first + count + 1]]


def histogram(values: pl.Series, scale: str) -> dict[str, Any]:
    """scale, first (number of the first bin), counts, missing (nulls), quantiles (percent -> a value that occurs)."""
    known = values.drop_nulls().cast(pl.Float64).sort()
    numbers = known.to_numpy()
    bins = np.searchsorted(_EDGES[scale], numbers, side="right") - 1
    counts = np.bincount(bins) if len(bins) else np.zeros(0, np.int64)
    first = int(bins[0]) if len(bins) else 0
    places = [round((len(numbers) - 1) * percent / 100) for percent in QUANTILES] if len(numbers) else []
    return {
        "scale": scale,
        "first": first,
        "counts": counts[first:].tolist(),
        "missing": values.null_count(),
        "quantiles": {
            str(percent): round(float(numbers[place]), 6) for percent, place in zip(QUANTILES, places, strict=False)
        },
    }


def counted(statistics: pl.DataFrame, column: str) -> dict[str, dict[str, int]]:
    """Documents and bytes by value, most bytes first; beyond two hundred values the rest together."""
    rows = (
        statistics.group_by(pl.col(column).fill_null(NONE).alias("value"))
        .agg(pl.len().alias("documents"), pl.col("text_bytes").sum().alias("bytes"))
        .sort("bytes", "value", descending=[True, False])
    )
    kept = {value: {"documents": documents, "bytes": size} for value, documents, size in rows[:_VALUES_KEPT].rows()}
    rest = rows[_VALUES_KEPT:]
    if rest.height:
        kept[OTHERS] = {"documents": int(rest["documents"].sum()), "bytes": int(rest["bytes"].sum())}
    return kept


def summary(statistics: pl.DataFrame) -> dict[str, Any]:
    """documents, bytes, histograms by column, documents and bytes by value, the largest documents.

    `statistics` are those of measures.document_statistics; a column that is absent is left out.
    """
    largest = statistics.drop_nulls("text_bytes").sort("text_bytes", "id", "path", descending=[True, False, False])
    return {
        "documents": statistics.height,
        "bytes": int(statistics["text_bytes"].sum()),
        "histograms": {
            column: histogram(statistics[column], scale)
            for column, scale in SCALES.items()
            if column in statistics.columns
        },
        "values": {column: counted(statistics, column) for column in VALUES if column in statistics.columns},
        "num_packages": statistics["package"].n_unique(),
        "largest": [
            {"id": document, "path": path, "package": package, "bytes": size}
            for document, path, package, size in largest.select("id", "path", "package", "text_bytes")
            .head(_SHOWN)
            .rows()
        ],
    }


def by_reason(removed: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """documents, bytes (where the column is there) and first examples for each reason, most documents first.

    `removed` has path, reason, detail and perhaps bytes, one row per document and reason.
    """
    size = pl.col("bytes").sum() if "bytes" in removed.columns else pl.lit(None, dtype=pl.Int64)
    counts = removed.group_by("reason").agg(pl.len().alias("documents"), size.alias("bytes"))
    reasons = {}
    for reason, documents, num_bytes in counts.sort("documents", "reason", descending=[True, False]).rows():
        rows = removed.filter(pl.col("reason") == reason).sort("path", "detail").head(_EXAMPLES)
        examples = [{"path": path, "detail": detail} for path, detail in rows.select("path", "detail").rows()]
        reasons[reason] = {"documents": documents, "bytes": num_bytes, "examples": examples}
    return reasons


def clusters(kept: pl.DataFrame, drops: pl.DataFrame) -> dict[str, Any]:
    """Near-duplicate clusters of two documents or more: how many, their sizes, the largest with their paths.

    `kept` has id, path, cluster; of `drops` those with the reason near_duplicate count, whose detail is the id of the
    document that stayed in their place.
    """
    near = drops.filter(pl.col("reason") == "near_duplicate").select("path", id="detail")
    joined = near.join(kept.select("id", "cluster"), on="id", how="inner")
    members = pl.concat([joined.select("cluster", "path", stays=False), kept.select("cluster", "path", stays=True)])
    sizes = members.group_by("cluster").agg(pl.len().alias("size")).filter(pl.col("size") > 1)
    by_size = sizes.group_by("size").agg(pl.len().alias("clusters")).sort("size")
    largest = []
    for cluster, size in sizes.sort("size", "cluster", descending=[True, False]).head(_SHOWN).rows():
        rows = members.filter(pl.col("cluster") == cluster).sort("path")
        largest.append(
            {
                "cluster": cluster,
                "size": size,
                "kept": rows.filter("stays")["path"].head(_EXAMPLES).to_list(),
                "dropped": rows.filter(~pl.col("stays"))["path"].head(_EXAMPLES).to_list(),
            }
        )
    return {
        "clusters": sizes.height,
        "documents": int(sizes["size"].sum()),
        "sizes": [list(row) for row in by_size.rows()],
        "largest": largest,
    }


def redacted(redactions: pl.DataFrame, kept: pl.DataFrame) -> dict[str, Any]:
    """Redactions by kind, in how many documents, and where most of them are. Never what was redacted."""
    kinds = redactions.group_by("kind").agg(pl.len().alias("redactions"), pl.col("id").n_unique().alias("documents"))
    most = redactions.group_by("id").agg(pl.len().alias("redactions")).join(kept.select("id", "path"), on="id")
    return {
        "documents": redactions["id"].n_unique(),
        "by_kind": {
            kind: {"redactions": count, "documents": documents}
            for kind, count, documents in kinds.sort("redactions", "kind", descending=[True, False]).rows()
        },
        "most": [
            {"id": document, "path": path, "redactions": count}
            for document, count, path in most.sort("redactions", "id", descending=[True, False]).head(_SHOWN).rows()
        ],
    }


def profile(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    left: pl.DataFrame,
    quarantine: pl.DataFrame,
    drops: pl.DataFrame,
    redactions: pl.DataFrame,
    checked: pl.DataFrame,
    kept: pl.DataFrame,
) -> dict[str, Any]:
    """profile.json: both summaries and what became of the rest.

    left        path, reason, detail: what ingest could not take
    quarantine  path, rule, value, bytes
    drops       id, path, reason, detail; redactions: id, kind; checked: id, bytes; kept: id, path, cluster
    """
    sizes = checked.unique("id", keep="first", maintain_order=True)
    quarantined = quarantine.select("path", "bytes", reason="rule", detail="value")
    return {
        "before": dict(before),
        "after": dict(after),
        "left": by_reason(left),
        "quarantined": by_reason(quarantined),
        "dropped": by_reason(drops.join(sizes, on="id", how="left")),
        "clusters": clusters(kept, drops),
        "redactions": redacted(redactions, kept),
    }
