"""How good a classifier is on held-out texts, each figure with its interval. Only numpy.

accuracy            share of texts whose labels are all right (Wilson)
macro_f1            mean over labels of 2 tp / (2 tp + fp + fn); a label that is neither there nor said counts 0
calibration_error   mean |p - share right| of decisions in bins of equal numbers by p (Naeini 2015, AAAI 29): of the
                    class that is chosen, or of each label's yes or no where several may hold
The last two by resampled texts (bootstrap).
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from components.core.figures.intervals import Estimate, bootstrap_of, wilson

BINS = 10
CONFIDENCE = 0.95
RESAMPLES = 1000


def figures_of(probabilities: NDArray[np.float64], targets: NDArray[np.int64], *, seed: int) -> dict[str, Estimate]:
    """The figures of n texts. probabilities (n, labels); targets (n, 1) the right class, or (n, labels) of 0 and 1."""
    number, labels = probabilities.shape
    if targets.shape[1] == 1:
        chosen = probabilities.argmax(axis=1)
        said, wanted = (np.eye(labels, dtype=bool)[each] for each in (chosen, targets[:, 0]))
        confidence, right = probabilities.max(axis=1)[:, None], (chosen == targets[:, 0])[:, None]
    else:
        said, wanted = probabilities > 0.5, targets.astype(bool)
        confidence, right = np.maximum(probabilities, 1 - probabilities), said == wanted
    resampled = partial(bootstrap_of, n=number, confidence=CONFIDENCE, resamples=RESAMPLES, seed=seed)
    return {
        "accuracy": wilson(float((said == wanted).all(axis=1).mean()), number, CONFIDENCE),
        "macro_f1": resampled(lambda rows: macro_f1(said[rows], wanted[rows])),
        "calibration_error": resampled(lambda rows: calibration_error(confidence[rows].ravel(), right[rows].ravel())),
    }


def macro_f1(said: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> float:
    """Both of shape (texts, labels)."""
    hits, of_either = (said & wanted).sum(axis=0), said.sum(axis=0) + wanted.sum(axis=0)
    return float((2 * hits / np.maximum(1, of_either)).mean())


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Of n decisions, both of shape (n,)."""
    bins = np.array_split(np.argsort(confidence, kind="stable"), min(BINS, len(confidence)))
    return float(sum(abs((confidence[each] - right[each]).sum()) for each in bins) / len(confidence))
