"""The gate: a table of decisions, absolute and against a champion. Error rates: test_compare.py."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from components.evaluation.comparison.compare import Outcome
from components.evaluation.comparison.criteria import Criteria, Guard, Primary
from components.evaluation.comparison.pairs import Paired
from components.release.config import ReleaseConfig
from components.release.gate import decide

BITS = Primary(metric="likelihood/bits_per_byte", better="lower")
PARSE = Guard(metric="completion/parse_share", better="higher", margin=0.05)
CONFIG = ReleaseConfig(min_parse_share=0.1, criteria=Criteria(primaries=(BITS,), guards=(PARSE,)))
GOOD = {"bits_per_byte": 1.6, "xz_bits_per_byte": 1.9, "parse_share": 0.4}


def equally(differences: NDArray[np.float64], shares: bool = False) -> Paired:
    return Paired(differences=differences, weights=np.ones(len(differences)), shares=shares)


def around(mean: float, spread: float, n: int = 200) -> Paired:
    """n differences with exactly this mean and this spread."""
    values = np.linspace(-1, 1, n)
    return equally(mean + spread * values / values.std())


def binary(better: int, worse: int, n: int = 200) -> Paired:
    return equally(np.array([1.0] * better + [-1.0] * worse + [0.0] * (n - better - worse)), shares=True)


def pairs(bits: Paired, parse: Paired) -> dict[str, Paired]:
    return {BITS.metric: bits, PARSE.metric: parse}


def with_bits(**changes: float) -> ReleaseConfig:
    """The config with another primary criterion."""
    primary = Primary.model_validate({**BITS.model_dump(), **changes})
    return CONFIG.model_copy(update={"criteria": Criteria(primaries=(primary,), guards=(PARSE,))})


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
        (around(-0.10, 0.1), binary(20, 5), "promote", "likelihood/bits_per_byte: -0.1000 against the champion on 200"),
        (around(-0.10, 0.1), binary(3, 3), "promote", "not worse by more than 0.05"),
        (around(0.00, 0.1), binary(20, 5), "not_enough_evidence", "not shown to be better; more items"),
        (around(0.05, 0.1), binary(20, 5), "refuse", "likelihood/bits_per_byte: +0.0500 against the champion on 200"),
        (around(-0.10, 0.1), binary(0, 40), "refuse", "completion/parse_share: -0.2000"),
        (around(-0.10, 0.1), binary(30, 36), "not_enough_evidence", "it may be worse by more than 0.05"),
        (
            around(-0.10, 0.1, 19),
            binary(20, 5),
            "not_enough_evidence",
            "19 independent items on both models, needed 20",
        ),
        (
            equally(np.append(around(-0.1, 0.1).differences, np.nan)),
            binary(20, 5),
            "not_enough_evidence",
            "no finite figure",
        ),
    ],
)
def test_against_a_champion(bits: Paired, parse: Paired, outcome: Outcome, reason: str) -> None:
    decision = decide(CONFIG, figures=GOOD, differences=pairs(bits, parse))
    assert decision.outcome == outcome
    assert reason in (decision.reasons[0] if outcome != "promote" else " ".join(decision.reasons))


@pytest.mark.parametrize(
    ("effect", "mean", "outcome", "reason"),
    [
        (0.05, -0.10, "promote", "better by more than 0.05"),
        (0.05, -0.05, "not_enough_evidence", "not shown to be better by more than 0.05"),
        (0.05, -0.01, "refuse", "not better by more than 0.05"),
        (-0.02, 0.0, "promote", "not worse by more than 0.02"),
        (-0.02, 0.06, "refuse", "worse by more than 0.02"),
    ],
)
def test_the_minimal_effect(effect: float, mean: float, outcome: Outcome, reason: str) -> None:
    """Below zero it lets refreshed models pass that are as good as the champion."""
    decision = decide(
        with_bits(minimal_effect=effect), figures=GOOD, differences=pairs(around(mean, 0.1), binary(20, 5))
    )
    assert decision.outcome == outcome
    assert reason in " ".join(decision.reasons)


def test_a_lucky_seed_is_no_improvement() -> None:
    """The same pairs, with and without a deviation of 0.03 between trainings."""
    clear = pairs(around(-0.05, 0.1), binary(20, 5))
    assert decide(CONFIG, figures=GOOD, differences=clear).outcome == "promote"
    noisy = with_bits(replicate_deviation=0.03, replicate_runs=7)
    assert decide(noisy, figures=GOOD, differences=clear).outcome == "not_enough_evidence"


def test_later_looks_need_more_evidence() -> None:
    """z of the primary metric is 2.4: beyond the 1.96 of a first look, not beyond the 2.64 of a third."""
    close = pairs(around(-0.017, 0.1), binary(20, 5))
    outcomes = [decide(CONFIG, figures=GOOD, differences=close, look=look).outcome for look in (1, 3)]
    assert outcomes == ["promote", "not_enough_evidence"]


def test_ratios_are_told_in_percent() -> None:
    """A guard of 10 % on seconds: logarithms of them are compared."""
    guard = Guard(metric="speed/seconds", better="lower", scale="ratio", margin=0.1)
    config = CONFIG.model_copy(update={"criteria": Criteria(primaries=(BITS,), guards=(guard,))})
    slower = {BITS.metric: around(-0.1, 0.1), guard.metric: around(math.log(1.3), 0.1)}
    decision = decide(config, figures=GOOD, differences=slower)
    assert decision.outcome == "refuse"
    assert "speed/seconds: +30.0% against the champion" in decision.reasons[0]
    assert "worse by more than 0.1 of it" in decision.reasons[0]


def test_a_ratio_is_of_the_champion_s_figure() -> None:
    """10 % more seconds are a factor of 1.1, 10 % less throughput one of 0.9; half as much is 50 % better."""
    seconds = Guard(metric="speed/seconds", better="lower", scale="ratio", margin=0.1)
    rate = Guard(metric="speed/tokens_per_second", better="higher", scale="ratio", margin=0.1)
    faster = Primary(metric="speed/seconds", better="lower", scale="ratio", minimal_effect=0.5)
    assert [math.exp(-seconds.threshold), math.exp(rate.threshold)] == pytest.approx([1.1, 0.9])
    assert math.exp(-faster.threshold) == pytest.approx(0.5)
    lost = Guard(metric="speed/tokens_per_second", better="higher", scale="ratio", margin=1.0)
    with pytest.raises(ValidationError, match="a ratio cannot fall by 1, needed less than 1"):
        Criteria(guards=(lost,))


def test_absolute_gate_holds_beside_a_worse_champion() -> None:
    better = pairs(around(-0.5, 0.1), binary(50, 0))
    assert decide(CONFIG, figures={**GOOD, "bits_per_byte": 1.89}, differences=better).outcome == "refuse"


def test_a_metric_that_was_not_compared_promotes_nobody() -> None:
    decision = decide(CONFIG, figures=GOOD, differences={BITS.metric: around(-0.5, 0.1)})
    assert decision.outcome == "not_enough_evidence"
    assert decision.reasons[0] == "completion/parse_share: not measured on both models"


def test_criteria_that_decide_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="primaries is empty"):
        Criteria(primaries=())
    with pytest.raises(ValidationError, match="likelihood/bits_per_byte is there twice"):
        Criteria(primaries=(BITS, BITS))
