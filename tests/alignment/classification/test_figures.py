"""Figures of a classifier, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from components.alignment.classification.figures import calibration_error, figures_of


def drawn(labels: int, number: int = 200) -> tuple[np.ndarray, np.random.Generator]:
    generator = np.random.default_rng(0)
    return generator.dirichlet(np.ones(labels), number), generator


def test_one_label_each() -> None:
    probabilities, generator = drawn(4)
    targets = np.where(generator.random(200) < 0.6, probabilities.argmax(axis=1), generator.integers(4, size=200))
    figures = figures_of(probabilities, targets[:, None], seed=0)
    said = probabilities.argmax(axis=1)
    assert figures["accuracy"].value == pytest.approx(accuracy_score(targets, said))
    assert figures["macro_f1"].value == pytest.approx(f1_score(targets, said, average="macro"))
    for each in figures.values():
        assert each.low < each.value < each.high and each.n == 200


def test_several_labels() -> None:
    generator = np.random.default_rng(1)
    probabilities = generator.random((200, 3))
    targets = (generator.random((200, 3)) < probabilities).astype(np.int64)
    figures = figures_of(probabilities, targets, seed=0)
    said = probabilities > 0.5
    assert figures["accuracy"].value == pytest.approx(accuracy_score(targets, said))
    assert figures["macro_f1"].value == pytest.approx(f1_score(targets, said, average="macro"))
    assert figures["calibration_error"].value < 0.1, "labels hold as often as they are believed to"


def test_calibration_is_the_gap_between_belief_and_truth() -> None:
    right = np.arange(100) % 2 == 0
    assert calibration_error(np.full(100, 0.9), right) == pytest.approx(0.4)
    assert calibration_error(np.full(100, 0.5), right) == pytest.approx(0.0)
    halves = np.repeat([0.6, 0.8], 50)
    assert calibration_error(halves, np.repeat([True, False], 50)) == pytest.approx((0.4 + 0.8) / 2)
