"""The gate: a table of decisions, and simulations of what its docstring promises about error rates."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from components.release.config import ReleaseConfig
from components.release.gate import Outcome, Paired, decide, interval

CONFIG = ReleaseConfig(min_parse_share=0.1)
GOOD = {"bits_per_byte": 1.6, "xz_bits_per_byte": 1.9, "parse_share": 0.4}


def equally(differences: NDArray[np.float64]) -> Paired:
    return Paired(differences=differences, weights=np.ones(len(differences)))


def around(mean: float, spread: float, n: int = 200) -> Paired:
    """n differences with exactly this mean and this spread."""
    values = np.linspace(-1, 1, n)
    return equally(mean + spread * values / values.std())


def binary(better: int, worse: int, n: int = 200) -> Paired:
    return equally(np.array([1.0] * better + [-1.0] * worse + [0.0] * (n - better - worse)))


@pytest.mark.parametrize(
    ("figures", "outcome", "reason"),
    [
        (GOOD, "promote", "1.600, 0.842 of the 1.900 of xz; the limit is at most 0.950"),
        ({**GOOD, "bits_per_byte": 1.85}, "refuse", "1.850, 0.974 of the 1.900 of xz; needed at most 0.950"),
        ({**GOOD, "parse_share": 0.05}, "refuse", "5.0% of completions parse; needed at least 10.0%"),
        ({**GOOD, "bits_per_byte": math.nan}, "not_enough_evidence", "no usable figure for bits_per_byte"),
        ({"bits_per_byte": 1.6, "parse_share": 0.4}, "not_enough_evidence", "xz_bits_per_byte"),
        ({**GOOD, "xz_bits_per_byte": 0.0}, "not_enough_evidence", "xz_bits_per_byte"),
    ],
)
def test_first_model(figures: dict[str, float], outcome: Outcome, reason: str) -> None:
    decision = decide(CONFIG, figures=figures, differences=None)
    assert decision.outcome == outcome
    assert reason in (decision.reasons[0] if outcome != "promote" else " ".join(decision.reasons))


@pytest.mark.parametrize(
    ("bits", "parse", "outcome", "reason"),
    [
        (around(-0.10, 0.1), binary(20, 5), "promote", "bits per byte"),
        (around(0.00, 0.1), binary(3, 3), "promote", "not worse by more than 0.02"),
        (around(0.05, 0.1), binary(20, 5), "refuse", "bits per byte: +0.0500 against the champion on 200 items"),
        (around(0.02, 0.1), binary(3, 3), "not_enough_evidence", "bits per byte"),
        (around(-0.10, 0.1), binary(0, 40), "refuse", "share of completions that parse: -0.1980"),
        (around(-0.10, 0.1), binary(30, 36), "not_enough_evidence", "evaluate on more items"),
        (around(-0.10, 0.1, 29), binary(20, 5), "not_enough_evidence", "29 items on both models, needed 30"),
        (
            equally(np.append(around(-0.1, 0.1).differences, np.nan)),
            binary(20, 5),
            "not_enough_evidence",
            "no finite figure",
        ),
    ],
)
def test_against_a_champion(bits: Paired, parse: Paired, outcome: Outcome, reason: str) -> None:
    decision = decide(CONFIG, figures=GOOD, differences={"bits_per_byte": bits, "parse_share": parse})
    assert decision.outcome == outcome
    assert reason in (decision.reasons[0] if outcome != "promote" else " ".join(decision.reasons))


def test_absolute_gate_holds_beside_a_worse_champion() -> None:
    better = {"bits_per_byte": around(-0.5, 0.1), "parse_share": binary(50, 0)}
    assert decide(CONFIG, figures={**GOOD, "bits_per_byte": 1.89}, differences=better).outcome == "refuse"


def test_a_metric_that_was_not_compared_promotes_nobody() -> None:
    decision = decide(CONFIG, figures=GOOD, differences={"bits_per_byte": around(-0.5, 0.1)})
    assert decision.outcome == "not_enough_evidence"


def rate(config: ReleaseConfig, true_difference: float, outcome: Outcome, trials: int = 2000) -> float:
    """How often the gate says `outcome` when the true difference in bits per byte is this, with items of every size."""
    generator = np.random.default_rng(0)
    parse = binary(50, 0)
    hits = 0
    for _ in range(trials):
        noise = generator.gamma(2.0, 0.05, 100) - generator.gamma(2.0, 0.05, 100)
        bits = Paired(differences=true_difference + noise, weights=generator.lognormal(0, 0.5, 100))
        differences = {"bits_per_byte": bits, "parse_share": parse}
        hits += decide(config, figures=GOOD, differences=differences).outcome == outcome
    return hits / trials


# Two standard errors of a rate of 0.05 over 2,000 trials are 0.01.
def test_equal_models_are_refused_no_more_than_stated() -> None:
    assert rate(CONFIG.model_copy(update={"margin_bits_per_byte": 0.0}), 0.0, "refuse") <= 0.05 + 0.01
    assert rate(CONFIG, 0.0, "refuse") <= 0.005


def test_models_worse_by_the_margin_pass_no_more_than_stated() -> None:
    assert rate(CONFIG, CONFIG.margin_bits_per_byte, "promote") <= 0.05 + 0.01


def test_the_gate_has_power() -> None:
    assert rate(CONFIG, -0.02, "promote") > 0.9
    assert rate(CONFIG, 0.08, "refuse") > 0.9


def test_bounds_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    for p_better, p_worse in ((0.02, 0.02), (0.2, 0.1), (0.0, 0.05)):
        truth = p_better - p_worse
        missed = 0
        for _ in range(2000):
            draws = generator.choice([1.0, -1.0, 0.0], size=100, p=[p_better, p_worse, 1 - p_better - p_worse])
            missed += interval(equally(draws), 0.95, share=True).high < truth
        assert missed / 2000 <= 0.05 + 0.015


def test_no_discordant_item_is_not_certainty() -> None:
    assert interval(equally(np.zeros(30)), 0.95, share=True).low < -0.04


def test_weights_count_as_copies_do_in_the_mean() -> None:
    differences = np.array([0.1, 0.4, -0.2])
    weighted = interval(Paired(differences=differences, weights=np.array([1.0, 2.0, 3.0])), 0.95, share=False)
    copies = interval(equally(np.repeat(differences, [1, 2, 3])), 0.95, share=False)
    assert weighted.mean == pytest.approx(copies.mean)
    assert weighted.high - weighted.low > copies.high - copies.low


def test_share_bounds_are_agresti_and_min_s() -> None:
    """Their formula, from the four cells of the table, each with half an item more."""
    both, better, worse, neither = 40 + 0.5, 12 + 0.5, 5 + 0.5, 43 + 0.5
    total = both + better + worse + neither
    mean = (better - worse) / total
    reach = 1.6448536 * ((better + worse) / total - mean**2) ** 0.5 / total**0.5
    found = interval(binary(12, 5, 100), 0.95, share=True)
    assert (found.mean, found.high - found.mean) == pytest.approx((mean, reach))
