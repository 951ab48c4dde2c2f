"""The fit finds laws that are known, says how sure it is, and refuses what five numbers cannot be told from."""

import numpy as np
import pytest

from components.training.planning.law_fit import Run, fit
from components.training.planning.laws import BESIROGLU, Law

SMALL = Law(source="planted", irreducible=0.6, a=40.0, alpha=0.35, b=300.0, beta=0.4)


def runs_of(law: Law, sizes: list[float], lengths: list[float], noise: float, seed: int = 0) -> list[Run]:
    generator = np.random.default_rng(seed)
    return [
        Run(parameters=size, tokens=tokens, loss=law.loss(size, tokens) * float(np.exp(noise * generator.normal())))
        for size in sizes
        for tokens in lengths
    ]


@pytest.mark.parametrize(
    ("law", "sizes", "lengths"),
    [
        (BESIROGLU, [1e8, 4e8, 1e9, 4e9], [2e9, 8e9, 3e10, 1e11]),
        (SMALL, [6e5, 1.4e6, 4e6], [2e5, 8e5, 3e6]),
    ],
)
def test_a_planted_law_is_found_again(law: Law, sizes: list[float], lengths: list[float]) -> None:
    found = fit(runs_of(law, sizes, lengths, 0.0), source="test", draws=50)
    for name in ("irreducible", "a", "alpha", "b", "beta"):
        assert getattr(found.law, name) == pytest.approx(getattr(law, name), rel=1e-3)
    assert found.predict(10 * sizes[-1], 10 * lengths[-1]).value == pytest.approx(
        law.loss(10 * sizes[-1], 10 * lengths[-1]), rel=1e-4
    )


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    # Ten noisy ladders: the truth of a run four times the largest must lie in the 90 % interval in most of them.
    inside = widths = 0.0
    for seed in range(10):
        found = fit(runs_of(SMALL, [6e5, 1.4e6, 4e6], [2e5, 8e5, 3e6], 0.005, seed), source="test", draws=50, seed=seed)
        interval = found.predict(8e6, 6e6)
        truth = SMALL.loss(8e6, 6e6)
        inside += interval.low <= truth <= interval.high
        widths += (interval.high - interval.low) / truth
    assert inside >= 7
    assert widths / 10 < 0.25  # an interval that holds everything says nothing


def test_one_spoilt_run_does_not_move_the_law() -> None:
    clean = runs_of(SMALL, [6e5, 1.4e6, 4e6, 8e6], [2e5, 8e5, 3e6, 6e6], 0.001)
    spoilt = [
        *clean[:5],
        Run(parameters=clean[5].parameters, tokens=clean[5].tokens, loss=clean[5].loss * 1.3),
        *clean[6:],
    ]
    before = fit(clean, source="test", draws=50).law.loss(4e6, 3e6)
    assert fit(spoilt, source="test", draws=50).law.loss(4e6, 3e6) == pytest.approx(before, rel=0.01)


def test_the_largest_run_is_held_back_and_its_error_widens_the_interval() -> None:
    runs = runs_of(SMALL, [6e5, 1.4e6, 4e6], [2e5, 8e5, 3e6], 0.002)
    plain = fit(runs, source="test", draws=50)
    assert plain.held_back is not None
    assert plain.held_back[0] == max(runs, key=lambda each: each.parameters * each.tokens)
    surprise = [*runs[:-1], Run(parameters=4e6, tokens=3e6, loss=runs[-1].loss * 1.1)]
    found = fit(surprise, source="test", draws=50)
    assert found.spread > 0.05 > plain.spread
    wide, narrow = found.predict(1e7, 1e7), plain.predict(1e7, 1e7)
    assert (wide.high - wide.low) / wide.value > 2 * (narrow.high - narrow.low) / narrow.value


@pytest.mark.parametrize(
    ("sizes", "lengths", "found"),
    [([1e6], [1e5, 2e5, 4e5, 8e5, 1e6, 2e6], "1 sizes"), ([1e6, 2e6], [1e5, 2e5], "4 finished runs")],
)
def test_too_few_runs_are_named(sizes: list[float], lengths: list[float], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        fit(runs_of(SMALL, sizes, lengths, 0.0), source="test")
