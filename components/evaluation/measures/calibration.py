"""Whether a model's probabilities are those with which it is right: expected calibration error by equal-mass bins.

At each place of the held-out documents the model names its most probable token with a probability p, and is right or
not. Places are sorted by p into bins of equal numbers; the error is the mean over places of a bin's |mean p - share
right| (Naeini 2015, AAAI 29; bins of equal mass: Nixon 2019, arXiv:1904.01685, section 3.3).

Few places make it larger: a bin of n places whose p is right is off by about 0.8 sqrt(p (1 - p) / n), which is 0.005
for 100,000 places in 15 bins.
Not covered: probabilities of all other tokens, which need a bin for each.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.inference.engine import Prediction

RELIABILITY = pl.Schema({"confidence": pl.Float64, "accuracy": pl.Float64, "places": pl.Int64})


def calibration_errors(
    predictions: Sequence[Prediction], num_bytes: NDArray[np.float64], num_bins: int
) -> NDArray[np.float64]:
    """What each document adds to the error, shape (documents,); their mean, weighted by bytes, is the error.

    A document adds its own gaps, each signed as its bin's is, so one that errs the other way takes away. That keeps
    the error a mean over documents, which resample and pair up as every other figure of theirs; the intervals leave out
    that resampled bins may change sign, which matters where the error is near zero.
    """
    confidence, is_right = _top(predictions)
    gaps = confidence - is_right
    owners = np.repeat(np.arange(len(predictions)), [len(each.log_probs) for each in predictions])
    sums = np.zeros(len(predictions))
    for places in _bins(confidence, num_bins):
        signed = np.sign(gaps[places].sum()) * gaps[places]
        sums += np.bincount(owners[places], signed, minlength=len(sums))
    return np.asarray(sums / len(gaps) / num_bytes * num_bytes.sum())


def reliability(predictions: Sequence[Prediction], num_bins: int) -> pl.DataFrame:
    """What calibration plots show, one row a bin in rising order: confidence (mean probability of the most probable
    token), accuracy (share of places where it is the true one), places."""
    confidence, is_right = _top(predictions)
    rows = [(confidence[at].mean(), is_right[at].mean(), len(at)) for at in _bins(confidence, num_bins) if len(at)]
    return pl.DataFrame(rows, schema=RELIABILITY, orient="row")


def _top(predictions: Sequence[Prediction]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probability of the most probable token at every place of all documents, and whether it is right."""
    log_probs = np.concatenate([each.top_log_probs for each in predictions]).astype(np.float64)
    return np.exp(log_probs), np.concatenate([each.is_top for each in predictions])


def _bins(confidence: NDArray[np.float64], num_bins: int) -> list[NDArray[np.int64]]:
    """The places of each bin, in the order of their confidence."""
    return np.array_split(np.argsort(confidence, kind="stable"), num_bins)
