"""How far a paired mean may be from the truth: draws of its error, hence bounds and p-values on either side.

Two sources of error, added draw by draw where both are there:
    items       Continuous figures: bootstrap-t over groups of items (Efron and Tibshirani 1993, 12.5), which follows
                skewed differences and unequal weights; from 1,000 groups on Student's t. Shares (passes, matches): the
                normal interval with half an item more in each cell of the paired table (Agresti and Min 2005,
                Statistics in Medicine 24:729), on Student's t where items are in groups; against a difference of none
                the exact test of McNemar (1947).
    trainings   Student's t with the deviation between trainings that differ in the seed alone.
Adding draws of both is Fisher's solution of the Behrens-Fisher problem, which errs to the safe side (Robinson 1976,
Annals of Statistics 4:963). Not covered: a dependence between the items of different groups.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, ndtri, stdtrit

from components.evaluation.comparison.pairs import Paired, Values

BOOTSTRAPPED_UNITS = 1000
FAR = 1000.0  # standard errors: no bound that anything passes, yet a number


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A weighted mean difference over n items in so many groups, with draws of its error around `centre`, sorted."""

    mean: float
    centre: float
    n: int
    units: int
    errors: Values
    discordant: tuple[int, int] | None  # items that the candidate and the champion alone got right; None: no exact test

    def low(self, confidence: float) -> float:
        """The lower one-sided bound."""
        return self.centre - float(np.quantile(self.errors, confidence))

    def high(self, confidence: float) -> float:
        """The upper one-sided bound."""
        return self.centre - float(np.quantile(self.errors, 1 - confidence))

    def p_not_above(self, threshold: float) -> float:
        """How likely a mean as large as this one is while the truth is not above the threshold."""
        if threshold == 0 and self.discordant:
            return _sign_test(self.discordant[0], sum(self.discordant))
        beyond = self.errors.size - int(np.searchsorted(self.errors, self.centre - threshold, side="left"))
        return (1 + beyond) / (1 + self.errors.size)

    def p_not_below(self, threshold: float) -> float:
        """How likely a mean as small as this one is while the truth is not below the threshold."""
        if threshold == 0 and self.discordant:
            return _sign_test(self.discordant[1], sum(self.discordant))
        beyond = int(np.searchsorted(self.errors, self.centre - threshold, side="right"))
        return (1 + beyond) / (1 + self.errors.size)


def difference(paired: Paired, *, resamples: int, seed: int) -> Difference:
    """The mean difference with its error. Raises ValueError for fewer than two groups of items, which have none."""
    values, weights = _units(paired)
    units = len(values)
    if units < 2:
        raise ValueError(f"{units} group of items has no error to estimate: needed 2 at least")
    mean = float((weights * values).sum() / weights.sum())
    generator = np.random.default_rng(seed)
    if paired.shares:
        values = np.append(values, [0.5**0.5, -(0.5**0.5)])
        weights = np.append(weights, [weights.mean()] * 2)
    centre = float((weights * values).sum() / weights.sum())
    # The jackknife's error: without its leverages, 20 documents of unequal sizes erred in 4.1 % of draws, not 3.2 %.
    rest = weights.sum() - (0 if paired.shares else weights)
    deviation = float(np.square(weights * (values - centre) / rest).sum()) ** 0.5
    if paired.shares and units == len(paired.differences):
        pivots = ndtri(_grid(resamples, generator))
    elif paired.shares or units > BOOTSTRAPPED_UNITS or deviation == 0:
        pivots = stdtrit(units - 1, _grid(resamples, generator))
    else:
        pivots = _pivots(values - centre, weights, _counts(units, resamples, seed))
    errors = deviation * pivots
    noise = paired.replicates
    if noise is not None and noise.deviation > 0:
        errors = errors + noise.standard_error * stdtrit(noise.degrees_of_freedom, _grid(resamples, generator))
    return Difference(
        mean=mean,
        centre=centre,
        n=len(paired.differences),
        units=units,
        errors=np.sort(errors),
        discordant=_discordant(paired, units),
    )


def _discordant(paired: Paired, units: int) -> tuple[int, int] | None:
    """Items on which one side alone is right, where items are independent and count alike and nothing else errs."""
    values, noise = paired.differences, paired.replicates
    alone = paired.shares and units == len(values) and bool(np.ptp(paired.weights) == 0)
    if not alone or (noise is not None and noise.deviation > 0) or not np.isin(values, (-1, 0, 1)).all():
        return None
    return int((values > 0).sum()), int((values < 0).sum())


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values adjusted so that any error among all of them is as unlikely as stated (Holm 1979, Scand J Stat 6:65)."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return adjusted


def spent(confidence: float, look: int) -> float:
    """The error that look 1, 2, ... at one candidate may spend: a 1 / (j (j + 1)) of all, which adds up to all of it.

    Alpha spending (Lan and DeMets 1983, Biometrika 70:659) by the union bound: valid for any number of looks, however
    they depend on each other, and without saying beforehand how many there will be. The first look has half.
    """
    if look < 1:
        raise ValueError(f"look {look} does not exist: the first one is 1")
    return (1 - confidence) / (look * (look + 1))


def _units(paired: Paired) -> tuple[Values, Values]:
    """Mean difference and weight of each group of items, shapes (groups,)."""
    if paired.groups is None:
        return paired.differences, paired.weights
    _, codes = np.unique(paired.groups, return_inverse=True)
    weights = np.bincount(codes, paired.weights).astype(np.float64)
    return np.bincount(codes, paired.weights * paired.differences) / weights, weights


def _grid(size: int, generator: np.random.Generator) -> Values:
    """Evenly spread probabilities in random order, shape (size,)."""
    return generator.permutation((np.arange(size) + 0.5) / size)


def _pivots(values: Values, weights: Values, counts: NDArray[np.float32]) -> Values:
    """(mean - 0) / its standard error of every resample, shape (resamples,), for values whose weighted mean is 0."""
    units = len(values)
    weights = weights / weights.mean()
    columns = np.stack([weights, weights * values, weights**2, weights**2 * values, (weights * values) ** 2], axis=1)
    total, first, squares, cross, second = (counts @ columns.astype(np.float32)).astype(np.float64).T
    means = first / total
    variances = np.maximum(second - 2 * means * cross + means**2 * squares, 0) * units / (units - 1)
    errors = np.sqrt(variances) / total
    certain = errors <= 1e-6 * np.abs(means)  # resamples without spread are as far away as can be
    pivots: Values = np.where(certain, np.sign(means) * FAR, means / np.where(certain, 1.0, errors))
    return pivots


@lru_cache(maxsize=8)
def _counts(units: int, resamples: int, seed: int) -> NDArray[np.float32]:
    """How often each unit is in each resample, shape (resamples, units); metrics with as many units share them."""
    drawn = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples)
    return drawn.astype(np.float32)


def _sign_test(successes: int, trials: int) -> float:
    """The probability of so many successes or more of fair trials."""
    return float(bdtrc(successes - 1, trials, 0.5)) if successes else 1.0
