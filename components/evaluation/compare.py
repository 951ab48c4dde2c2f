"""Compare two models item by item: the difference of each metric with a paired bootstrap interval."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.core.errors import DataError
from components.evaluation.config import EvaluateConfig
from components.evaluation.intervals import bootstrap
from components.evaluation.measure import Questions, Report, measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Candidate minus champion of one metric over their common items, with a two-sided interval."""

    suite: str
    metric: str
    candidate: float
    champion: float
    difference: float
    low: float
    high: float
    n: int


def paired(candidate: pl.DataFrame, champion: pl.DataFrame, suite: str, metric: str) -> pl.DataFrame:
    """Common items of one metric: item, candidate, champion, weight; sorted by item.

    Raises DataError when the two were asked nothing in common, or an item stands twice.
    """
    chosen = (pl.col("suite") == suite) & (pl.col("metric") == metric)
    left = candidate.filter(chosen).select("item", "weight", candidate="value")
    right = champion.filter(chosen).select("item", champion="value")
    if left["item"].is_duplicated().any() or right["item"].is_duplicated().any():
        raise DataError(f"{suite}/{metric}: an item stands twice; filter the items to one model each")
    rows = left.join(right, on="item", how="inner").sort("item")
    if not len(rows):
        raise DataError(f"{suite}/{metric}: the two models have no item in common; evaluate both on the same data")
    return rows


def item_differences(candidate: pl.DataFrame, champion: pl.DataFrame, suite: str, metric: str) -> NDArray[np.float64]:
    """Candidate minus champion for each common item, shape (items,), for a gate."""
    rows = paired(candidate, champion, suite, metric)
    return (rows["candidate"] - rows["champion"]).to_numpy()


def compare_items(candidate: pl.DataFrame, champion: pl.DataFrame, config: EvaluateConfig) -> list[Difference]:
    """The difference of every metric that both models have, in the candidate's order.

    Items are resampled in pairs, so what makes an item hard for both models cancels.
    """
    theirs = set(champion.select("suite", "metric").unique().iter_rows())
    keys = candidate.select("suite", "metric").unique(maintain_order=True).iter_rows()
    return [
        _difference(candidate, champion, suite, metric, config) for suite, metric in keys if (suite, metric) in theirs
    ]


def _difference(
    candidate: pl.DataFrame, champion: pl.DataFrame, suite: str, metric: str, config: EvaluateConfig
) -> Difference:
    rows = paired(candidate, champion, suite, metric)
    ours, theirs, weights = (rows[name].to_numpy() for name in ("candidate", "champion", "weight"))
    found = bootstrap(
        ours - theirs, weights, confidence=config.confidence, resamples=config.resamples, seed=config.seed
    )
    return Difference(
        suite=suite,
        metric=metric,
        candidate=float(np.average(ours, weights=weights)),
        champion=float(np.average(theirs, weights=weights)),
        difference=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
    )


def compare_models(
    candidate: Path,
    champion: Path,
    asked: Questions,
    config: EvaluateConfig,
    report: Report = lambda _: None,
) -> list[Difference]:
    """Measure two models on the same questions, now, and compare them."""
    items = [
        measure(name, directory, asked, config, report)
        for name, directory in (("candidate", candidate), ("champion", champion))
    ]
    return compare_items(items[0], items[1], config)
