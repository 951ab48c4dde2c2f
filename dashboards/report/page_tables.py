"""The two tables of the report's page: what happened to every document, and every metric with its interval."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from components.core import artifact
from components.data.documents.document import parts

# What stands beside the models of the cycle, behind them.
BESIDE = ("champion", "unigram", "ngram", "xz")
BITS_PER_BYTE = "bits_per_byte"
XZ_BITS_PER_BYTE = "xz_bits_per_byte"
LOWER_IS_BETTER = (
    *(BITS_PER_BYTE, "loss", "perplexity", "_error", "_seconds"),
    *("_compliance", "over_refusal", "unjudged", "cut_prompts"),
    *("extracted", "exposure_bits", "verbatim", "matched_share"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Something counted, and its percentage of the largest count beside it."""

    name: str
    count: int
    width: float

    @staticmethod
    def ranked(counts: Mapping[str, int]) -> "list[Count]":
        """Counts in falling order, names in rising order among equals."""
        largest = max(counts.values(), default=1)
        order = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        return [Count(name=name, count=count, width=100 * count / largest) for name, count in order]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Documents and bytes that left for one reason, or stayed; shares are percentages of what came in."""

    stage: str
    reason: str
    documents: int
    bytes: int
    share: float


def removals(raw: Path, checked: Path | None, clean: Path | None) -> tuple[list[Removal], Removal | None]:
    """What checking and cleaning took out by reason, largest first within a stage, and what stayed.

    Bytes are those of the ingested text, shares are of bytes. A document that broke several rules counts once.
    """
    documents = pl.scan_parquet(parts(raw)).select("id", "bytes")
    total = int(documents.select(pl.col("bytes").sum()).collect().item())
    sizes = documents.unique("id")
    by_reason = []
    if checked:
        rules = pl.scan_parquet(checked / "quarantine.parquet").group_by("id", "path")
        by_reason += _by_reason(
            _stage(checked), rules.agg(reason=pl.col("rule").unique().sort().str.join(", ")), sizes, total
        )
    if clean is None:
        return by_reason, None
    by_reason += _by_reason(
        _stage(clean), pl.scan_parquet(clean / "drops.parquet").select("id", "reason"), sizes, total
    )
    kept = pl.scan_parquet(parts(clean)).select("id").join(sizes, on="id", how="left")
    count, num_bytes = kept.select(pl.len(), pl.col("bytes").sum()).collect().row(0)
    return by_reason, _removal(_stage(clean), "kept", count, num_bytes, total)


def _stage(directory: Path) -> str:
    """The stage that wrote an artifact."""
    return artifact.read(directory, verify=False).stage


def _by_reason(stage: str, removed: pl.LazyFrame, sizes: pl.LazyFrame, total: int) -> list[Removal]:
    sums = removed.join(sizes, on="id", how="left").group_by("reason").agg(pl.len(), pl.col("bytes").sum())
    rows = sums.sort("bytes", "reason", descending=[True, False]).collect().rows()
    return [_removal(stage, reason, count, num_bytes, total) for reason, count, num_bytes in rows]


def _removal(stage: str, reason: str, documents: int, num_bytes: int, total: int) -> Removal:
    share = 100 * num_bytes / total if total else 0.0
    return Removal(stage=stage, reason=reason, documents=documents, bytes=num_bytes, share=share)


def redaction_counts(clean: Path) -> list[Count]:
    """Redactions by kind."""
    kinds = pl.read_parquet(clean / "redactions.parquet", columns=["kind"])["kind"].value_counts()
    return Count.ranked(dict(kinds.iter_rows()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One model's estimate: `dot`, `left` and `width` place it and its interval on its row's scale, in percent."""

    model: str
    value: str
    interval: str | None
    n: int | None
    dot: float
    left: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric of one suite, a cell per model that has it."""

    suite: str
    metric: str
    lower_is_better: bool
    cells: list[Cell | None]


def models_of(metrics: Mapping[str, Any]) -> list[str]:
    """Models that were evaluated, in the order in which they were made."""
    names = [*(name for name in metrics if name not in BESIDE), *(name for name in BESIDE if name in metrics)]
    return [name for name in names if any(_estimates(metrics, name))]


def final_model(metrics: Mapping[str, Any]) -> str | None:
    """The last model of the cycle that has bits per byte."""
    names = [name for name in metrics if name not in BESIDE and bits_per_byte(metrics, name) is not None]
    return names[-1] if names else None


def bits_per_byte(metrics: Mapping[str, Any], model: str) -> float | None:
    """Held-out bits per byte of a model."""
    values = [float(each["value"]) for _, metric, each in _estimates(metrics, model) if metric == BITS_PER_BYTE]
    return values[0] if values else None


def xz_bits_per_byte(metrics: Mapping[str, Any]) -> float | None:
    """What `xz -9` makes of the same held-out files, one by one."""
    for model in metrics:
        for _, metric, each in _estimates(metrics, model):
            if metric == XZ_BITS_PER_BYTE:
                return float(each["value"])
    return None


def evaluation_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Every metric, suite by suite in the order of their first mention; a cell is None where a model lacks it."""
    rows: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    models = models_of(metrics)
    for model in models:
        for suite, metric, each in _estimates(metrics, model):
            rows.setdefault((suite, metric), {})[model] = each
    suites = list(dict.fromkeys(suite for suite, _ in rows))
    return [
        Row(suite=suite, metric=metric, lower_is_better=metric.endswith(LOWER_IS_BETTER), cells=_cells(models, row))
        for (suite, metric), row in sorted(rows.items(), key=lambda each: suites.index(each[0][0]))
    ]


def _estimates(metrics: Mapping[str, Any], model: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(suite, metric, {value, low, high, n}) of one model; what has another shape is for figures.json's readers."""
    suites = metrics.get(model)
    for suite, values in suites.items() if isinstance(suites, Mapping) else ():
        for metric, each in values.items() if isinstance(values, Mapping) else ():
            if isinstance(each, Mapping) and isinstance(each.get("value"), int | float):
                yield suite, metric, each


def _cells(models: list[str], row: Mapping[str, Mapping[str, Any]]) -> list[Cell | None]:
    """The estimates of one row on a common scale from the lowest bound to the highest."""
    bounds = {model: _bounds(each) for model, each in row.items()}
    ends = [end for model, each in row.items() for end in (*bounds[model], float(each["value"]))]
    start, length = min(ends), (max(ends) - min(ends)) or 1.0
    single = len(set(ends)) == 1

    def at(value: float) -> float:
        return 50.0 if single else 100 * (value - start) / length

    cells: list[Cell | None] = []
    for model in models:
        if model not in row:
            cells.append(None)
            continue
        low, high = bounds[model]
        has_interval = row[model].get("low") is not None and row[model].get("high") is not None
        cells.append(
            Cell(
                model=model,
                value=_number(row[model]["value"]),
                interval=f"{_number(low)} to {_number(high)}" if has_interval else None,
                n=row[model].get("n"),
                dot=at(float(row[model]["value"])),
                left=at(low),
                width=at(high) - at(low),
            )
        )
    return cells


def _bounds(each: Mapping[str, Any]) -> tuple[float, float]:
    value = each["value"]
    low, high = (value if each.get(name) is None else each[name] for name in ("low", "high"))
    return float(low), float(high)


def _number(value: float) -> str:
    """Three decimals below 100, as few as it takes above; counts as they are."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if abs(value) < 100 and math.isfinite(value) else f"{value:,.4g}"
