"""How good a reward model is on held-out pairs, each figure with its interval. Only numpy.

accuracy            share of pairs whose chosen answer has the higher score (Wilson); also by margin
calibration_error   mean |p - share right| in bins by p = sigmoid of the difference of raw scores, of the answer that
                    has the higher one (Naeini 2015, AAAI 29)
length_correlation  Spearman's rank correlation of score and length over all answers
length_excess       how much more often the longer answer has the higher score than it is the chosen one: above 0 where
                    the model takes length for worth, whatever length is worth (Singhal et al. 2023, arXiv:2310.03716)
All but accuracy by resampled pairs (bootstrap).
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from components.alignment.classification.figures import calibration_error
from components.core.figures.intervals import Estimate, bootstrap_of, wilson

CONFIDENCE = 0.95
RESAMPLES = 1000


def reward_figures(
    scores: NDArray[np.float64],
    lengths: NDArray[np.int64],
    margins: NDArray[np.float64],
    *,
    deviation: float,
    seed: int,
) -> dict[str, Estimate]:
    """Of n held-out pairs. scores, lengths (n, 2): chosen, rejected; margins (n,); `deviation` of the raw scores."""
    number = len(scores)
    apart = scores[:, 0] - scores[:, 1]
    right = apart > 0
    confidence = 1 / (1 + np.exp(-np.abs(apart) * deviation))
    longer = lengths[:, 0] != lengths[:, 1]
    is_longer = lengths[:, 0] > lengths[:, 1]
    prefers_longer = right == is_longer
    resampled = partial(bootstrap_of, n=number, confidence=CONFIDENCE, resamples=RESAMPLES, seed=seed)
    figures = {
        "accuracy": wilson(float(right.mean()), number, CONFIDENCE),
        "calibration_error": resampled(lambda rows: calibration_error(confidence[rows], right[rows])),
        "length_correlation": resampled(lambda rows: spearman(scores[rows].ravel(), lengths[rows].ravel())),
        "length_excess": resampled(
            lambda rows: (
                float((longer * (prefers_longer.astype(float) - is_longer))[rows].sum())
                / max(1, int(longer[rows].sum()))
            )
        ),
    }
    for margin in np.unique(margins).tolist():
        here = margins == margin
        figures[f"accuracy_margin_{margin:g}"] = wilson(float(right[here].mean()), int(here.sum()), CONFIDENCE)
    return figures


def spearman(one: NDArray[np.float64], other: NDArray[np.int64]) -> float:
    """Rank correlation, both of shape (n,); 0 where either is constant."""
    ranks = [_ranks(each) for each in (one, other)]
    deviations = [each.std() for each in ranks]
    if min(deviations) == 0:
        return 0.0
    return float(np.mean((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())) / np.prod(deviations))


def _ranks(values: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Ranks from 0, equal values with their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts + 1) / 2)[inverse]
    return ranks
