"""A figure with its interval: Wilson for shares, bootstrap for means and ratios."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure over n items with a two-sided interval."""

    value: float
    low: float
    high: float
    n: int


def wilson(mean: float, n: int, confidence: float) -> Estimate:
    """A share of n independent items (Wilson 1927, JASA 22:209).

    Holds, wider than need be, for the mean of any values in [0, 1]: none vary more than zeros and ones of that mean.
    Unlike a bootstrap it does not shrink to a point when every item has the same value.
    """
    if n < 1:
        raise ValueError("no items: a share of nothing is not defined")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * (mean * (1 - mean) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = max(0.0, centre - reach), min(1.0, centre + reach)
    return Estimate(value=mean, low=min(low, mean), high=max(high, mean), n=n)


def bootstrap(values: Values, weights: Values, *, confidence: float, resamples: int, seed: int) -> Estimate:
    """The weighted mean of n items, shapes (n,), with a percentile interval over resampled items (Efron 1979).

    Weights go with their items, so sums over unequal items (bits over bytes of documents) are resampled as a whole.
    """
    n = len(values)
    if n < 1:
        raise ValueError("no items: a mean of nothing is not defined")
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    means = (counts @ (values * weights)) / (counts @ weights)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    value = float((values * weights).sum() / weights.sum())
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value), n=n)


def bootstrap_of(
    figure: Callable[[NDArray[np.int64]], float], n: int, *, confidence: float, resamples: int, seed: int
) -> Estimate:
    """A figure of n items that is no mean of theirs, with a percentile interval over resampled items (Efron 1979).

    figure   of the items of some numbers, shape (n,)
    """
    if n < 1:
        raise ValueError("no items: a figure of nothing is not defined")
    generator = np.random.default_rng(seed)
    drawn = [figure(generator.integers(n, size=n)) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    value = figure(np.arange(n))
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value), n=n)
