"""Calibration error against its definition, and on predictions whose error is known."""

import numpy as np
import pytest

from components.evaluation.measures.calibration import calibration_errors, reliability
from components.inference.engine import Prediction

SIZES = np.array([4.0, 1.0, 7.0])


def predictions(confidence: np.ndarray, right: np.ndarray, parts: int = 3) -> list[Prediction]:
    """Documents of equal numbers of places; a token that is not the most probable one has half its probability."""
    found = np.log(np.where(right, confidence, confidence / 2)).astype(np.float32)
    top = np.log(confidence).astype(np.float32)
    return [
        Prediction(log_probs=one, top_log_probs=other)
        for one, other in zip(np.array_split(found, parts), np.array_split(top, parts), strict=True)
    ]


def error(found: np.ndarray) -> float:
    return float(np.average(found, weights=SIZES))


def test_the_error_is_that_of_its_definition() -> None:
    generator = np.random.default_rng(0)
    confidence, right = generator.uniform(0.05, 1, 999), generator.random(999) < 0.4
    order, wanted = np.argsort(confidence), 0.0
    for number in range(9):
        chosen = order[number * 111 : (number + 1) * 111]
        wanted += 111 / 999 * abs(confidence[chosen].mean() - right[chosen].mean())
    assert error(calibration_errors(predictions(confidence, right), SIZES, 9)) == pytest.approx(wanted, abs=1e-6)


def test_right_probabilities_have_no_error_and_wrong_ones_have_theirs() -> None:
    generator = np.random.default_rng(1)
    confidence = generator.uniform(0.05, 0.8, 60_000)
    right = generator.random(60_000) < confidence
    assert error(calibration_errors(predictions(confidence, right), SIZES, 15)) < 0.012
    sure = predictions(confidence + 0.15, right)
    assert error(calibration_errors(sure, SIZES, 15)) == pytest.approx(0.15, abs=0.01)
    humble = predictions(confidence / 2, right)
    assert error(calibration_errors(humble, SIZES, 15)) == pytest.approx(confidence.mean() / 2, abs=0.01)


def test_too_sure_and_too_humble_do_not_cancel() -> None:
    """Half the places say 0.9 and are right in half, the others say 0.4 and are right in 0.8."""
    confidence = np.repeat([0.9, 0.4], 3000)
    right = np.concatenate([np.arange(3000) % 2 == 0, np.arange(3000) % 5 > 0])
    assert error(calibration_errors(predictions(confidence, right), SIZES, 10)) == pytest.approx(0.4, abs=1e-6)


def test_the_bins_of_a_plot_hold_every_place_and_tell_the_error() -> None:
    generator = np.random.default_rng(2)
    confidence = generator.uniform(0.05, 1, 1000)
    found = predictions(confidence, generator.random(1000) < confidence**2)
    bins = reliability(found, 12)
    assert bins["places"].sum() == 1000 and bins["places"].max() - bins["places"].min() <= 1
    assert bins["confidence"].is_sorted() and len(bins) == 12
    gap = ((bins["confidence"] - bins["accuracy"]).abs() * bins["places"]).sum() / 1000
    assert gap == pytest.approx(error(calibration_errors(found, SIZES, 12)))
    assert len(reliability(predictions(confidence[:3], np.ones(3, dtype=bool)), 12)) == 3
