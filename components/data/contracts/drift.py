"""How far a corpus has moved away from an accepted one: the population stability index of every column.

Reads   two summaries of components.data.contracts.profile. Pure functions: which corpus was accepted is not known here,
because it depends on what is in production; the cycle asks, after the stages that wrote the summaries.
Covers: numbers (sizes, lines, shares, redactions) on bins that hold about a tenth of the accepted documents each, and
values (language, licence, source).  Not covered: the texts themselves; which documents moved.

PSI = sum over bins of (q - p) ln(q / p), p and q the shares of accepted and new documents, each bin with half a
document more than it has so that none is empty (Siddiqi 2006, "Credit Risk Scorecards", whose reading is: below 0.1 no
shift, above 0.25 a shift). Chance alone gives about (bins - 1)(1/n + 1/m): 0.04 for ten bins and 500 documents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.config import DriftConfig

BINS = 10
# Values that are rarer than this on both sides are taken together: each is hardly more than chance.
RARE_SHARE = 0.01
COLUMNS_OF_VALUES = ("language", "licence", "source")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The index of every column, largest first; none, and why, where nothing could be judged."""

    psi: dict[str, float]
    unjudged: str | None = None

    def beyond(self, limit: float) -> dict[str, float]:
        """The columns whose index is above a limit."""
        return {column: value for column, value in self.psi.items() if value > limit}


def population_stability_index(accepted: Sequence[float], new: Sequence[float]) -> float:
    """PSI of two counts over the same bins, 0 for equal shares and always at least 0. No bins, no shift."""
    p, q = (np.asarray(each, np.float64) + 0.5 for each in (accepted, new))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def of_numbers(accepted: Mapping[str, Any], new: Mapping[str, Any]) -> float:
    """PSI of two histograms: their fine bins made coarser by the accepted one's deciles, missing values as a bin."""
    end = max(each["first"] + len(each["counts"]) for each in (accepted, new))
    old, now = _dense(accepted, end), _dense(new, end)
    group = _deciles(old)
    counts = [np.bincount(group, weights=each, minlength=1) for each in (old, now)]
    missing = (accepted["missing"], new["missing"])
    if any(missing):
        counts = [np.append(each, extra) for each, extra in zip(counts, missing, strict=True)]
    return population_stability_index(counts[0].tolist(), counts[1].tolist())


def _dense(histogram: Mapping[str, Any], end: int) -> NDArray[np.float64]:
    """The counts of the bins 0 to `end`."""
    counts = np.zeros(end)
    counts[histogram["first"] : histogram["first"] + len(histogram["counts"])] = histogram["counts"]
    return counts


def _deciles(counts: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each fine bin the number of the coarse one, each with about a tenth of the counts; shape as `counts`."""
    total = counts.sum()
    if not total:
        return np.zeros(len(counts), np.int64)
    middle = np.cumsum(counts) - counts / 2
    tenths = np.minimum((BINS * middle / total).astype(np.int64), BINS - 1)
    return np.unique(tenths, return_inverse=True)[1].astype(np.int64)


def of_values(accepted: Mapping[str, Any], new: Mapping[str, Any]) -> float:
    """PSI of documents by value; values rare on both sides count together."""
    names = sorted(accepted.keys() | new.keys())
    counts = [np.array([side.get(name, {}).get("documents", 0) for name in names], float) for side in (accepted, new)]
    rare = np.all([each < RARE_SHARE * each.sum() for each in counts], axis=0)
    merged = [[*each[~rare].tolist(), *([float(each[rare].sum())] if rare.any() else [])] for each in counts]
    return population_stability_index(*merged)


def judge(accepted: Mapping[str, Any], new: Mapping[str, Any], config: DriftConfig) -> Drift:
    """The index of every column that both summaries have; nothing when either has few documents."""
    fewest = min(accepted["documents"], new["documents"])
    if fewest < config.min_documents:
        return Drift(psi={}, unjudged=f"{fewest} documents are fewer than min_documents {config.min_documents}")
    psi = {
        column: of_numbers(accepted["histograms"][column], histogram)
        for column, histogram in new["histograms"].items()
        if column in accepted["histograms"]
    }
    psi |= {
        column: of_values(accepted["values"][column], new["values"][column])
        for column in COLUMNS_OF_VALUES
        if column in accepted["values"] and column in new["values"]
    }
    return Drift(psi=dict(sorted(psi.items(), key=lambda each: (-each[1], each[0]))))


def complaint(stage: str, drift: Drift, config: DriftConfig) -> str | None:
    """One line about the columns that moved too far, and what to do; None when none did."""
    beyond = drift.beyond(config.max_psi)
    if not beyond:
        return None
    moved = ", ".join(f"{column} {value:.2f}" for column, value in beyond.items())
    return (
        f"{stage}: the corpus has moved away from that of the model in production: population stability index {moved}, "
        f"at most {config.max_psi:g} is allowed ({stage}.drift.max_psi); see reports/profile.html"
    )
