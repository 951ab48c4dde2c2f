"""Compare two models item by item: a table of every metric, and a verdict on whether one may take the other's place.

Every criterion asks whether the improvement I exceeds a threshold t: the minimal effect of a primary metric, minus the
margin of a guard. Both sides are tested, one-sided, with the error that this look may spend (differences.spent):
    promote              I > t for one primary metric at least (Holm over the primary metrics) and for every guard
    refuse               I < t for all primary metrics, or for one guard (Holm over these)
    not enough evidence  neither, or a metric that was not measured on enough items
A promotion needs every guard to pass, so guards need no correction among each other (intersection-union test, Berger
1982, Technometrics 24:295), and a false one is no likelier than one primary's error: all looks together 1 - confidence.

The error of a primary metric holds the deviation between trainings with other seeds: a lucky seed is no better recipe.
It is estimated from replicates where they are given; where there is one training on each side it is the criterion's
`replicate_deviation`, measured before on trainings of the recipe (benchmarks/gate.py).
Not covered: many candidates tried against one champion, each of which has the whole error for itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from components.core.errors import DataError
from components.evaluation.comparison.criteria import Criteria, Deciding, Primary
from components.evaluation.comparison.differences import Difference, difference, holm, spent
from components.evaluation.comparison.pairs import (
    Paired,
    Replicates,
    averaged,
    deviation_between,
    differences,
    metrics_of,
    paired,
)

Outcome = Literal["promote", "refuse", "not_enough_evidence"]
Check = tuple[Outcome, str]
PASSES: Outcome = "promote"
FAILS: Outcome = "refuse"
OPEN: Outcome = "not_enough_evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was decided, with a plain sentence per check, those that decided first."""

    outcome: Outcome
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric of two models: candidate minus champion with a two-sided interval, p-value and Holm's correction of it
    over all rows. None where fewer than two groups of items leave no error to estimate, or no item is clean."""

    suite: str
    metric: str
    candidate: float
    champion: float
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    p_adjusted: float | None
    n: int
    groups: int
    contaminated: int
    difference_clean: float | None
    low_clean: float | None
    high_clean: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Two recipes, each with the items of one training or more; `contaminated`: suite and item, which both share."""

    candidates: Sequence[pl.DataFrame]
    champions: Sequence[pl.DataFrame]
    contaminated: pl.DataFrame | None = None


def combine(checks: Sequence[Check]) -> Verdict:
    """One refusal refuses; else one doubt withholds; else promote. The reasons that decided come first."""
    order: dict[Outcome, int] = {FAILS: 0, OPEN: 1, PASSES: 2}
    ranked = sorted(checks, key=lambda check: order[check[0]])
    return Verdict(outcome=ranked[0][0], reasons=tuple(reason for _, reason in ranked))


def judge(criteria: Criteria, pairs: Mapping[str, Paired], look: int = 1) -> list[Check]:
    """One outcome and reason per criterion, for `combine`. `pairs` by suite/metric; `look` counts from 1 and goes up
    each time that the same candidate is judged against the same champion."""
    alpha = spent(criteria.confidence, look)
    checks: list[Check] = []
    gains: dict[str, Difference] = {}
    for each in criteria.deciding:
        gain = _gain(each, pairs.get(each.metric), criteria)
        if isinstance(gain, str):
            checks.append((OPEN, gain))
        else:
            gains[each.metric] = gain
    primaries = [each for each in criteria.primaries if each.metric in gains]
    guards = [each for each in criteria.guards if each.metric in gains]
    passing = holm(np.array([gains[each.metric].p_not_above(each.threshold) for each in primaries])) <= alpha
    tested = [each for each in criteria.deciding if each.metric in gains]
    failing = {each.metric: gains[each.metric].p_not_below(each.threshold) for each in tested}
    none_better = max((failing[each.metric] for each in primaries), default=1.0)
    refused = holm(np.array([none_better, *(failing[each.metric] for each in guards)])) <= alpha
    outcome: Outcome
    for each, better in zip(primaries, passing, strict=True):
        outcome = PASSES if passing.any() else FAILS if refused[0] else OPEN
        checks.append(
            (outcome, _sentence(each, gains[each.metric], outcome if better or outcome != PASSES else OPEN, alpha))
        )
    for each, worse in zip(guards, refused[1:], strict=True):
        passes = gains[each.metric].p_not_above(each.threshold) <= alpha
        outcome = FAILS if worse else PASSES if passes else OPEN
        checks.append((outcome, _sentence(each, gains[each.metric], outcome, alpha)))
    return checks


def _gain(criterion: Deciding, pair: Paired | None, criteria: Criteria) -> Difference | str:
    """The improvement in one metric, or why nothing can be said about it."""
    if pair is None or not len(pair.differences):
        return f"{criterion.metric}: not measured on both models"
    if not (np.isfinite(pair.differences).all() and np.isfinite(pair.weights).all()):
        return f"{criterion.metric}: some items have no finite figure"
    units = len(pair.differences) if pair.groups is None else len(np.unique(pair.groups))
    if units < criteria.min_items:
        return f"{criterion.metric}: {units} independent items on both models, needed {criteria.min_items}"
    noise = pair.replicates
    if noise is None and criterion.replicate_deviation:
        noise = Replicates(deviation=criterion.replicate_deviation, degrees_of_freedom=criterion.replicate_runs - 1)
    turned = replace(pair, differences=criterion.sign * pair.differences, replicates=noise)
    return difference(turned, resamples=criteria.resamples, seed=criteria.seed)


def _sentence(criterion: Deciding, gain: Difference, outcome: Outcome, alpha: float) -> str:
    """A check in a sentence: candidate minus champion, its bounds, and what follows."""
    mean, *bounds = (criterion.sign * each for each in (gain.mean, gain.low(1 - alpha), gain.high(1 - alpha)))
    low, high = (_number(criterion, each) for each in sorted(bounds))
    text = (
        f"{criterion.metric}: {_number(criterion, mean)} against the champion on {gain.n} items, "
        f"between {low} and {high} (each bound with {1 - alpha:.1%} confidence)"
    )
    amount = criterion.minimal_effect if isinstance(criterion, Primary) else -criterion.margin
    size = f"{abs(amount):.4g}" if criterion.scale == "difference" else f"{abs(amount):.4g} of it"
    if isinstance(criterion, Primary) and amount >= 0:
        by = f" by more than {size}" if amount else ""
        conclusion = {PASSES: f"better{by}", FAILS: f"not better{by}", OPEN: f"not shown to be better{by}"}
    else:
        by = f"by more than {size}"
        conclusion = {PASSES: f"not worse {by}", FAILS: f"worse {by}", OPEN: f"it may be worse {by}"}
    more = "; more items, or more trainings, would narrow it" if outcome == OPEN else ""
    return f"{text}: {conclusion[outcome]}{more}"


def _number(criterion: Deciding, value: float) -> str:
    return f"{np.expm1(value):+.1%}" if criterion.scale == "ratio" else f"{value:+.4f}"


def pairs_for(criteria: Criteria, sides: Sides) -> dict[str, Paired]:
    """Every metric of the criteria that both sides have, in pairs, without contaminated items, replicates averaged.

    Raises DataError where the two sides were asked different things.
    """
    candidate, champion = averaged(sides.candidates), averaged(sides.champions)
    both = {*metrics_of(candidate)} & {*metrics_of(champion)}
    pairs = {}
    for each in criteria.deciding:
        suite, metric = each.metric.split("/")
        if (suite, metric) not in both:
            continue
        rows = clean(paired(candidate, champion, suite, metric), suite, sides.contaminated)
        if len(rows):
            pairs[each.metric] = differences(rows, each.scale, _noise(sides, each))
    return pairs


def _noise(sides: Sides, criterion: Deciding) -> Replicates | None:
    suite, metric = criterion.metric.split("/")
    deviation = deviation_between((sides.candidates, sides.champions), suite, metric, criterion.scale)
    return None if deviation is None else _replicates(sides, *deviation)


def _replicates(sides: Sides, deviation: float, degrees_of_freedom: int) -> Replicates:
    return Replicates(
        deviation=deviation,
        degrees_of_freedom=degrees_of_freedom,
        candidate_runs=len(sides.candidates),
        champion_runs=len(sides.champions),
    )


def clean(rows: pl.DataFrame, suite: str, contaminated: pl.DataFrame | None) -> pl.DataFrame:
    """The rows (column item) of a suite that are not contaminated."""
    if contaminated is None:
        return rows
    return rows.join(contaminated.filter(pl.col("suite") == suite), on="item", how="anti", maintain_order="left")


def compare_items(sides: Sides, criteria: Criteria) -> list[Row]:
    """Every metric of two models, in the candidate's order, as a table.

    Items are resampled in pairs, so what makes an item hard for both models cancels. Raises DataError where one side
    has a suite or metric that the other lacks, or other items.
    """
    candidate, champion = averaged(sides.candidates), averaged(sides.champions)
    for side, mine, theirs in (("champion", champion, candidate), ("candidate", candidate, champion)):
        missing = [each for each in metrics_of(theirs) if each not in metrics_of(mine)] if len(mine) else []
        if missing:
            names = ", ".join("/".join(each) for each in missing)
            raise DataError(f"the {side} was not measured in {names}; evaluate both on the same suites")
    if not len(candidate):
        raise DataError("the candidate's evaluation has no items; evaluate it again")
    rows = [_row(sides, candidate, champion, suite, metric, criteria) for suite, metric in metrics_of(candidate)]
    known = [index for index, each in enumerate(rows) if each.p_value is not None]
    adjusted = holm(np.array([rows[index].p_value for index in known], dtype=np.float64))
    for index, value in zip(known, adjusted, strict=True):
        rows[index] = replace(rows[index], p_adjusted=float(value))
    return rows


def _row(
    sides: Sides, candidate: pl.DataFrame, champion: pl.DataFrame, suite: str, metric: str, criteria: Criteria
) -> Row:
    rows = paired(candidate, champion, suite, metric)
    deviation = deviation_between((sides.candidates, sides.champions), suite, metric)
    noise = None if deviation is None else _replicates(sides, *deviation)
    every = _estimated(rows, criteria, noise)
    untouched = clean(rows, suite, sides.contaminated)
    without = _estimated(untouched, criteria, noise) if len(untouched) < len(rows) else every
    weights = rows["weight"].to_numpy()
    ours, theirs = (float(np.average(rows[side].to_numpy(), weights=weights)) for side in ("candidate", "champion"))
    return Row(
        suite=suite,
        metric=metric,
        candidate=ours,
        champion=theirs,
        difference=ours - theirs,
        low=every.low if every else None,
        high=every.high if every else None,
        p_value=every.p_value if every else None,
        p_adjusted=None,
        n=len(rows),
        groups=every.groups if every else 1,
        contaminated=len(rows) - len(untouched),
        difference_clean=without.mean if without else None,
        low_clean=without.low if without else None,
        high_clean=without.high if without else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Estimated:
    mean: float
    low: float
    high: float
    p_value: float
    groups: int


def _estimated(rows: pl.DataFrame, criteria: Criteria, noise: Replicates | None) -> _Estimated | None:
    """The mean difference with a two-sided interval; None for fewer than two groups."""
    pair = differences(rows, replicates=noise) if len(rows) else None
    if pair is None or pair.groups is None or len(np.unique(pair.groups)) < 2:
        return None
    estimate = difference(pair, resamples=criteria.resamples, seed=criteria.seed)
    reach = 0.5 + criteria.confidence / 2
    return _Estimated(
        mean=estimate.mean,
        low=min(estimate.low(reach), estimate.mean),
        high=max(estimate.high(reach), estimate.mean),
        p_value=min(1.0, 2 * min(estimate.p_not_above(0), estimate.p_not_below(0))),
        groups=estimate.units,
    )
