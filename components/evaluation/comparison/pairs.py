"""Two models' items side by side: the same questions, one difference each.

Items named GROUP:MEMBER (lines and functions of one document) are of one group: what they share makes them alike, so
groups are what a comparison draws from. Raises DataError where the two were not asked the same, and names what differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.core.errors import DataError

Scale = Literal["difference", "ratio"]
Values = NDArray[np.float64]
NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicates:
    """What training again with another seed would change.

    `deviation` is the standard deviation of one training's figure; `degrees_of_freedom` those it was estimated with.
    """

    deviation: float
    degrees_of_freedom: int
    candidate_runs: int = 1
    champion_runs: int = 1

    @property
    def standard_error(self) -> float:
        """Of the difference between the two sides' means."""
        return float(self.deviation * (1 / self.candidate_runs + 1 / self.champion_runs) ** 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Candidate minus champion per item, its weight (bytes, for bits per byte) and its group, each of shape (items,).

    Without groups each item is one. `shares`: values were within 0 and 1, and some were either. Without replicates the
    two models alone are compared, whatever another seed would have given.
    """

    differences: Values
    weights: Values
    groups: NDArray[np.uint32] | None = None
    shares: bool = False
    replicates: Replicates | None = None


def metrics_of(items: pl.DataFrame) -> list[tuple[str, str]]:
    """Suite and metric of the items, in their order."""
    rows = items.select("suite", "metric").unique(maintain_order=True).iter_rows()
    return [(str(suite), str(metric)) for suite, metric in rows]


def group_of(item: pl.Expr) -> pl.Expr:
    """The group of an item, from its name."""
    return item.str.replace(r":[^:]*$", "")


def paired(candidate: pl.DataFrame, champion: pl.DataFrame, suite: str, metric: str) -> pl.DataFrame:
    """Every item of one metric: item, weight, candidate, champion; sorted by item.

    Raises DataError when a side has no such metric, when an item stands twice, or when items or weights differ.
    """
    name = f"{suite}/{metric}"
    sides = {"candidate": candidate, "champion": champion}
    rows = {side: _chosen(frame, side, suite, metric) for side, frame in sides.items()}
    joined = rows["candidate"].join(rows["champion"], on="item", how="full", coalesce=True, suffix="_champion")
    missing = {side: joined.filter(pl.col(side).is_null())["item"].sort() for side in sides}
    for side, other in (("champion", "candidate"), ("candidate", "champion")):
        if len(missing[side]):
            raise DataError(
                f"{name}: the {side} was not asked {len(missing[side])} of the {other}'s {len(rows[other])} items "
                f"({_first(missing[side])}); evaluate both on the same data and suites"
            )
    unequal = joined.filter(pl.col("weight") != pl.col("weight_champion"))["item"].sort()
    if len(unequal):
        raise DataError(
            f"{name}: {len(unequal)} items weigh another number of bytes on each side ({_first(unequal)}): they are "
            "not the same texts; evaluate both on the same data"
        )
    return joined.select("item", "weight", "candidate", "champion").sort("item")


def _chosen(items: pl.DataFrame, side: str, suite: str, metric: str) -> pl.DataFrame:
    if not len(items):
        raise DataError(f"the {side}'s evaluation has no items; evaluate it again")
    rows = items.filter((pl.col("suite") == suite) & (pl.col("metric") == metric))
    if not len(rows):
        metrics = ", ".join("/".join(each) for each in metrics_of(items))
        raise DataError(f"the {side}'s evaluation has no {suite}/{metric}; it has {metrics}: evaluate both alike")
    if rows["item"].is_duplicated().any():
        twice = rows.filter(pl.col("item").is_duplicated())["item"]
        raise DataError(f"{suite}/{metric}: an item stands twice ({twice[0]}); filter the items to one model each")
    bad = rows.filter(~pl.col("value").is_finite() | ~pl.col("weight").is_finite() | (pl.col("weight") <= 0))["item"]
    if len(bad):
        raise DataError(f"{suite}/{metric}: {len(bad)} items of the {side} have no finite figure ({_first(bad)})")
    return rows.select("item", "weight", pl.col("value").alias(side))


def _first(names: pl.Series) -> str:
    return ", ".join(names.head(NAMED)) + (", ..." if len(names) > NAMED else "")


def differences(rows: pl.DataFrame, scale: Scale = "difference", replicates: Replicates | None = None) -> Paired:
    """Candidate minus champion of each row of `paired`; of their logarithms for ratios, which have to be above zero."""
    ours, theirs = (rows[side].to_numpy() for side in ("candidate", "champion"))
    if scale == "ratio":
        if min(ours.min(), theirs.min()) <= 0:
            raise DataError("a ratio needs figures above zero; compare this metric by difference")
        ours, theirs = np.log(ours), np.log(theirs)
    return Paired(
        differences=ours - theirs,
        weights=rows["weight"].to_numpy(),
        groups=rows.select(group_of(pl.col("item")).rank("dense").cast(pl.UInt32)).to_series().to_numpy(),
        shares=scale == "difference" and _are_shares(np.concatenate([ours, theirs])),
        replicates=replicates,
    )


def _are_shares(values: Values) -> bool:
    """Whether the values are scores of items. Bits per byte are above zero and never one."""
    return bool(values.min() >= 0 and values.max() <= 1 and np.isin(values, (0.0, 1.0)).any())


def averaged(replicates: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The items of several trainings of one recipe, each item with its mean. Raises DataError where they differ."""
    first = replicates[0]
    if len(replicates) == 1:
        return first
    for other in replicates[1:]:
        for suite, metric in dict.fromkeys([*metrics_of(first), *metrics_of(other)]):
            paired(first, other, suite, metric)
    names = ["suite", "item", "metric", "weight"]
    means = pl.concat(replicates).group_by(names, maintain_order=True).agg(pl.col("value").mean())
    return means.with_columns(model=pl.lit(first["model"][0])).select(first.columns)


def figure(items: pl.DataFrame, suite: str, metric: str, scale: Scale = "difference") -> float:
    """The weighted mean of one metric, of logarithms for ratios."""
    rows = items.filter((pl.col("suite") == suite) & (pl.col("metric") == metric))
    values = rows["value"].log() if scale == "ratio" else rows["value"]
    return float(np.average(values.to_numpy(), weights=rows["weight"].to_numpy()))


def deviation_between(
    sides: Sequence[Sequence[pl.DataFrame]], suite: str, metric: str, scale: Scale = "difference"
) -> tuple[float, int] | None:
    """Standard deviation of a metric between trainings of one recipe, and its degrees of freedom.

    Each side is a recipe with one item table per training; their variances are pooled. None where no side has two.
    Trainings are measured on the same items, so what makes items hard cancels; what is left of their noise is in it.
    """
    figures = [np.array([figure(each, suite, metric, scale) for each in side]) for side in sides]
    degrees = sum(len(each) - 1 for each in figures)
    if not degrees:
        return None
    squares = sum(float(np.square(each - each.mean()).sum()) for each in figures)
    return (squares / degrees) ** 0.5, degrees
