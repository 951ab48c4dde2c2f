"""Intervals and estimators against brute force, closed forms and simulation."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.figures.intervals import bootstrap, wilson
from components.evaluation.config import EvaluateConfig, FunctionalConfig
from components.evaluation.measures.functional import pass_at_k
from components.evaluation.measures.model_measures import estimate

ONES = np.ones(200)


@pytest.mark.parametrize(("n", "passed"), [(n, c) for n in range(1, 8) for c in range(n + 1)])
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n: int, passed: int) -> None:
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(range(n), k))
        wanted = sum(any(index < passed for index in subset) for subset in subsets) / len(subsets)
        assert pass_at_k(n, passed, k) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("n", "passed", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_pass_at_k_is_not_defined_beyond_the_samples(n: int, passed: int, k: int) -> None:
    with pytest.raises(ValueError, match="is not defined"):
        pass_at_k(n, passed, k)


def test_k_beyond_the_samples_is_no_config() -> None:
    with pytest.raises(ValueError, match=r"k is 11, needed 1 to num_samples \(10\)"):
        FunctionalConfig(k=(1, 11))


@given(st.integers(1, 400), st.floats(0, 1), st.floats(0.6, 0.99))
def test_wilson_bounds_solve_its_equation(n: int, mean: float, confidence: float) -> None:
    """Each bound p satisfies |mean - p| = z sqrt(p (1 - p) / n), unless it is cut at 0 or 1."""
    found = wilson(mean, n, confidence)
    z = np.sqrt(2) * _inverse_error_function(confidence)
    assert 0 <= found.low <= mean <= found.high <= 1
    for bound in (found.low, found.high):
        if 1e-6 < bound < 1 - 1e-6:
            assert abs(mean - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), abs=1e-6)


def _inverse_error_function(value: float) -> float:
    """By bisection of math.erf."""
    low, high = 0.0, 6.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < value else (low, middle)
    return low


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5])
def test_wilson_covers_the_truth(share: float) -> None:
    """The exact probability that the interval of 100 items holds the share, summed over all outcomes."""
    covered = 0.0
    for count in range(101):
        found = wilson(count / 100, 100, 0.95)
        if found.low <= share <= found.high:
            covered += math.comb(100, count) * share**count * (1 - share) ** (100 - count)
    assert 0.93 < covered < 0.99


def test_bootstrap_of_a_ratio_covers_the_truth() -> None:
    """Bits over bytes of documents of very unequal sizes; the truth is 2 bits a byte."""
    generator, inside = np.random.default_rng(0), []
    for seed in range(300):
        sizes = generator.lognormal(8, 1, 80)
        found = bootstrap(generator.normal(2, 0.3, 80), sizes, confidence=0.95, resamples=500, seed=seed)
        inside.append(found.low <= 2 <= found.high)
    assert 0.88 < np.mean(inside) < 0.99


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(0, 1, 200)
    found = bootstrap(values, ONES, confidence=0.95, resamples=20_000, seed=0)
    reach = 1.96 * values.std() / 200**0.5
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.01)
    assert found == bootstrap(values, ONES, confidence=0.95, resamples=20_000, seed=0)


def test_nothing_has_no_figure() -> None:
    for call in (
        lambda: wilson(0.0, 0, 0.95),
        lambda: bootstrap(ONES[:0], ONES[:0], confidence=0.95, resamples=9, seed=0),
    ):
        with pytest.raises(ValueError, match="no items"):
            call()


def test_pass_at_k_is_resampled_by_task_where_tasks_differ() -> None:
    """Half of 40 tasks at 1: the standard error of the mean is 0.079, so 95 % reach 0.155 to each side."""
    config = EvaluateConfig(resamples=4000)
    varied = pl.DataFrame({"value": [1.0] * 20 + [0.0] * 20, "weight": [1.0] * 40})
    found = estimate("pass_at_1", varied, config)
    values, weights = varied["value"].to_numpy(), varied["weight"].to_numpy()
    assert found == bootstrap(values, weights, confidence=0.95, resamples=4000, seed=0)
    assert (found.low, found.high) == pytest.approx((0.345, 0.655), abs=0.02)
    none = estimate("pass_at_1", varied.with_columns(pl.lit(0.0).alias("value")), config)
    assert none == wilson(0.0, 40, 0.95)
    assert none.high > 0.05, "no pass in 40 is no proof of none"


@pytest.mark.parametrize("temperatures", [(), (0.0,), (0.2, 0.2)])
def test_temperatures_that_mean_nothing_are_refused(temperatures: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="temperatures"):
        FunctionalConfig(temperatures=temperatures)
