"""Comparisons against closed forms, exact tests and simulations of what the gate promises."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from components.core.errors import DataError
from components.evaluation.comparison.compare import Sides, compare_items, judge, pairs_for
from components.evaluation.comparison.criteria import Criteria, Guard, Primary
from components.evaluation.comparison.differences import difference, holm, spent
from components.evaluation.comparison.pairs import Paired, Replicates, averaged, deviation_between, differences, paired
from components.evaluation.measures.model_measures import ITEM_SCHEMA

CRITERIA = Criteria(
    primaries=(Primary(metric="likelihood/bits_per_byte", better="lower"),), guards=(), resamples=1000, min_items=2
)


def equally(values: NDArray[np.float64], **more: object) -> Paired:
    return Paired(differences=values, weights=np.ones(len(values)), **more)  # type: ignore[arg-type]


def binary(better: int, worse: int, n: int) -> Paired:
    return equally(np.array([1.0] * better + [-1.0] * worse + [0.0] * (n - better - worse)), shares=True)


def items(
    model: str,
    values: dict[str, float],
    metric: str = "bits_per_byte",
    weight: float = 1.0,
    suite: str = "likelihood",
) -> pl.DataFrame:
    rows = [(model, suite, item, metric, value, weight) for item, value in values.items()]
    return pl.DataFrame(rows, schema=ITEM_SCHEMA, orient="row")


def named(values: NDArray[np.float64]) -> dict[str, float]:
    return {f"{number}": float(value) for number, value in enumerate(values)}


def one(candidate: pl.DataFrame, champion: pl.DataFrame, contaminated: pl.DataFrame | None = None) -> Sides:
    return Sides(candidates=(candidate,), champions=(champion,), contaminated=contaminated)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_passes_are_compared_by_mcnemar_s_exact_test(better: int, worse: int, both: int) -> None:
    n = better + worse + both + 2
    found = difference(binary(better, worse, n), resamples=1000, seed=0)
    if better + worse:
        wanted = stats.binomtest(better, better + worse, alternative="greater").pvalue
        assert found.p_not_above(0) == pytest.approx(wanted)
        wanted = stats.binomtest(better, better + worse, alternative="less").pvalue
        assert found.p_not_below(0) == pytest.approx(wanted)
    else:
        assert found.p_not_above(0) == found.p_not_below(0) == 1


def test_bounds_of_shares_are_agresti_and_min_s() -> None:
    """Their formula, from the four cells of the table, each with half an item more."""
    both, better, worse, neither = 40 + 0.5, 12 + 0.5, 5 + 0.5, 43 + 0.5
    total = both + better + worse + neither
    mean = (better - worse) / total
    reach = 1.6448536 * ((better + worse) / total - mean**2) ** 0.5 / total**0.5
    found = difference(binary(12, 5, 100), resamples=10_000, seed=0)
    assert found.high(0.95) == pytest.approx(mean + reach, abs=1e-4)
    assert found.low(0.95) == pytest.approx(mean - reach, abs=1e-4)
    assert difference(binary(0, 0, 30), resamples=1000, seed=0).low(0.95) < -0.04


def test_bounds_of_means_are_student_s_where_he_is_right() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, 40)
    found = difference(equally(values), resamples=40_000, seed=0)
    wanted = stats.ttest_1samp(values, 0)
    low, high = wanted.confidence_interval(0.95)
    assert (found.low(0.975), found.high(0.975)) == pytest.approx((low, high), abs=0.03)
    assert 2 * found.p_not_above(0) == pytest.approx(wanted.pvalue, abs=0.02)


def test_a_group_is_one_item_however_many_it_has() -> None:
    """40 documents with 5 equal lines each know no more than 40 lines."""
    values = np.random.default_rng(2).normal(0, 1, 40)
    alone = difference(equally(values), resamples=2000, seed=0)
    lines = equally(np.repeat(values, 5), groups=np.repeat(np.arange(40, dtype=np.uint32), 5))
    together = difference(lines, resamples=2000, seed=0)
    assert together.low(0.975) == pytest.approx(alone.low(0.975))
    assert together.mean == pytest.approx(alone.mean)
    assert (together.n, together.units) == (200, 40)


def test_trainings_add_their_deviation() -> None:
    """With items that agree, what is left is Student's t of the trainings, over both sides' runs."""
    values = np.full(50, 0.1) + np.linspace(-1e-6, 1e-6, 50)
    noise = Replicates(deviation=0.02, degrees_of_freedom=4, candidate_runs=2, champion_runs=4)
    found = difference(equally(values, replicates=noise), resamples=20_000, seed=0)
    reach = stats.t.ppf(0.975, 4) * 0.02 * (1 / 2 + 1 / 4) ** 0.5
    assert (found.low(0.975), found.high(0.975)) == pytest.approx((0.1 - reach, 0.1 + reach), rel=1e-2)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_its_definition(values: list[float]) -> None:
    """Step down through the sorted p-values: the k-th smallest of m counts m - k + 1 times, never below one before."""
    found = holm(np.array(values))
    for index, value in enumerate(values):
        smaller = sorted(values)[: sorted(values).index(value) + 1]
        wanted = max(min(1.0, (len(values) - rank) * each) for rank, each in enumerate(smaller))
        assert found[index] == pytest.approx(wanted)


def test_looks_spend_no_more_than_there_is() -> None:
    assert sum(spent(0.95, look) for look in range(1, 2000)) == pytest.approx(0.05, rel=1e-3)
    assert spent(0.95, 1) == pytest.approx(0.025)
    with pytest.raises(ValueError, match="look 0 does not exist"):
        spent(0.95, 0)


def test_pairs_cancel_what_both_models_find_hard() -> None:
    """Items vary by 1, models differ by 0.05 ± 0.01: unpaired intervals would overlap, the paired one is narrow."""
    generator = np.random.default_rng(0)
    hard = generator.normal(2, 1, 100)
    shift = generator.normal(-0.05, 0.01, 100)
    candidate = items("new", dict(reversed(named(hard + shift).items())))
    (found,) = compare_items(one(candidate, items("old", named(hard))), CRITERIA)
    assert found.low is not None and found.high is not None
    assert found.low < shift.mean() < found.high
    assert found.high - found.low < 0.01
    assert found.difference == pytest.approx(found.candidate - found.champion)
    assert found.p_value == found.p_adjusted == pytest.approx(2 / 1001)


def test_a_model_equals_itself() -> None:
    own = items("a", {"x": 1.5, "y": 0.25})
    (found,) = compare_items(one(own, own), CRITERIA)
    assert (found.difference, found.low, found.high, found.n, found.p_value) == (0, 0, 0, 2, 1)


def test_contaminated_items_are_told_apart() -> None:
    """A candidate that knows three of thirty items by heart is no better on the others."""
    truth = np.linspace(1, 2, 30)
    noise = np.random.default_rng(3).normal(0, 0.01, 30)
    known = np.where(np.arange(30) < 3, 0.1, truth + noise)
    marked = pl.DataFrame({"suite": "likelihood", "item": ["0", "1", "2"]})
    sides = one(items("new", named(known)), items("old", named(truth)), marked)
    (found,) = compare_items(sides, CRITERIA)
    assert found.contaminated == 3
    assert found.difference < -0.05 < found.difference_clean < 0.01  # type: ignore[operator]
    assert found.low_clean < 0 < found.high_clean  # type: ignore[operator]
    assert len(pairs_for(CRITERIA, sides)["likelihood/bits_per_byte"].differences) == 27


def test_a_single_item_has_a_difference_and_no_interval() -> None:
    (found,) = compare_items(one(items("a", {"x": 1.0}), items("b", {"x": 1.5})), CRITERIA)
    assert (found.difference, found.low, found.p_value, found.p_adjusted) == (-0.5, None, None, None)
    lines = {"x:1": 1.0, "x:2": 2.0}
    (found,) = compare_items(one(items("a", lines), items("b", lines)), CRITERIA)
    assert (found.n, found.groups, found.low) == (2, 1, None)
    with pytest.raises(ValueError, match="1 group of items has no error"):
        difference(equally(np.ones(1)), resamples=1000, seed=0)


def test_what_cannot_be_compared_is_named() -> None:
    left, right = items("a", {"x": 1.0, "y": 2.0}), items("b", {"x": 5.0, "y": 7.0})
    empty = left.clear()
    for candidate, champion, said in (
        (left, items("b", {"x": 5.0}), r"the champion was not asked 1 of the candidate's 2 items \(y\)"),
        (
            left,
            pl.concat([right, items("b", {"z": 1.0})]),
            r"candidate was not asked 1 of .* 3 items \(z\)",
        ),
        (left, items("b", {"x": 5.0, "y": 7.0}, weight=9.0), r"2 items weigh another number of bytes .*\(x, y\)"),
        (pl.concat([left, left]), right, r"an item stands twice \([xy]\)"),
        (left, items("b", {"x": 1.0, "y": math.nan}), r"1 items of the champion have no finite figure \(y\)"),
        (empty, right, "the candidate's evaluation has no items"),
        (left, empty, "the champion's evaluation has no items"),
        (left, items("b", {"x": 1.0}, "exact_match"), "the champion's evaluation has no likelihood/bits_per_byte; it"),
    ):
        with pytest.raises(DataError, match=said):
            paired(candidate, champion, "likelihood", "bits_per_byte")
    with pytest.raises(DataError, match=r"the champion was not measured in mbpp/pass_at_1; evaluate both on the same"):
        compare_items(one(pl.concat([left, items("a", {"t": 1.0}, "pass_at_1", suite="mbpp")]), right), CRITERIA)
    with pytest.raises(DataError, match="the candidate's evaluation has no items"):
        compare_items(one(empty, empty), CRITERIA)
    with pytest.raises(DataError, match="a ratio needs figures above zero"):
        differences(paired(items("a", {"x": 0.0, "y": 1.0}), right, "likelihood", "bits_per_byte"), "ratio")


def test_replicates_are_averaged_and_their_deviation_pooled() -> None:
    """Two trainings of one recipe, three of the other, with known figures."""
    recipes = [[1.0, 1.2], [2.0, 2.1, 2.5]]
    sides = [[items(f"{figure}", {"x": figure, "y": figure}) for figure in figures] for figures in recipes]
    found = deviation_between(sides, "likelihood", "bits_per_byte")
    squares = sum(np.var(each, ddof=1) * (len(each) - 1) for each in recipes)
    assert found == (pytest.approx((squares / 3) ** 0.5), 3)
    assert averaged(sides[1])["value"].to_list() == pytest.approx([2.2, 2.2])
    assert deviation_between([sides[0][:1], sides[1][:1]], "likelihood", "bits_per_byte") is None
    pair = pairs_for(CRITERIA, Sides(candidates=sides[0], champions=sides[1]))["likelihood/bits_per_byte"]
    assert pair.replicates is not None
    assert pair.replicates.standard_error == pytest.approx((squares / 3 * (1 / 2 + 1 / 3)) ** 0.5)
    with pytest.raises(DataError, match="was not asked"):
        averaged([sides[0][0], items("z", {"x": 1.0})])


def test_one_of_several_primary_metrics_suffices_after_holm_s_correction() -> None:
    """z of 2.1 passes alone (1.96) and not as the better of two (2.24); a guard still has to hold."""
    two = (*CRITERIA.primaries, Primary(metric="suite/score", better="higher"))
    guard = Guard(metric="safety/over_refusal", better="lower", margin=0.1)
    spread = np.linspace(-1, 1, 200) / np.linspace(-1, 1, 200).std(ddof=1)
    close, flat = equally(-0.021 + 0.1414 * spread), equally(0.1414 * spread)
    alone = judge(CRITERIA, {"likelihood/bits_per_byte": close})
    assert [outcome for outcome, _ in alone] == ["promote"]
    both = CRITERIA.model_copy(update={"primaries": two, "guards": (guard,)})
    pairs = {"likelihood/bits_per_byte": close, "suite/score": flat, guard.metric: binary(1, 1, 200)}
    assert [outcome for outcome, _ in judge(both, pairs)] == ["not_enough_evidence", "not_enough_evidence", "promote"]
    clear = {**pairs, "likelihood/bits_per_byte": equally(-0.05 + 0.1414 * spread)}
    assert [outcome for outcome, _ in judge(both, clear)] == ["promote", "promote", "promote"]
    refusing = {**clear, guard.metric: binary(50, 1, 200)}
    assert judge(both, refusing)[2][0] == "refuse"
