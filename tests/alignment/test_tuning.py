"""The steps of tuning: their rates, and the clock that ends them."""

import pytest

from components.alignment.config import AlignConfig, SftConfig
from components.alignment.objectives import tuning
from components.alignment.objectives.tuning import Steps, plan_steps
from components.deadline import budget
from components.deadline.budget import Budget
from tests.rates import recorded

ENDLESS = Budget(seconds=None, started=0.0)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("fixed steps of sft", SftConfig()),
        ("fixed steps of align", AlignConfig()),
        ("few steps", SftConfig(max_steps=23, warmup_fraction=0.1)),
        ("no warmup", AlignConfig(max_steps=10, warmup_fraction=0.0)),
    ],
)
def test_fixed_steps_have_the_recorded_rates_bit_for_bit(name: str, config: SftConfig | AlignConfig) -> None:
    steps, rates = plan_steps(config, 10_000, ENDLESS), recorded("tuning", name).rates
    assert steps.begin() and steps.last == len(rates) - 1
    assert [steps.schedule.share(step) for step in range(len(rates))] == rates


def test_replayed_decisions_have_the_recorded_rates() -> None:
    expected = recorded("tuning", "a replay")
    config = SftConfig(max_steps=100, warmup_fraction=0.1, decisions=((10, 30), (20, 40)))
    steps = plan_steps(config, 10_000, ENDLESS)
    assert steps.begin() and steps.decided() == {"max_steps": 100, "decisions": [(10, 30), (20, 40)]}
    rates = [steps.schedule.share(step) for step in range(steps.last + 1)]
    assert rates == pytest.approx(expected.rates, rel=1e-12, abs=1e-12)


class Clock:
    """Moved by hand."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one that tuning reads."""
    clock = Clock()
    for module in (tuning, budget):
        monkeypatch.setattr(module, "time", clock)
    return clock


def by_clock(seconds: float, most: int, warmup_fraction: float) -> Steps:
    config = SftConfig(max_epochs=1.0, max_steps=1, warmup_fraction=warmup_fraction)
    return plan_steps(config, most, Budget(seconds=seconds + 4.0, started=0.0, reserve_seconds=4.0))


@pytest.mark.parametrize(
    ("name", "seconds", "most", "warmup_fraction"),
    [
        ("by the clock", 15.1, 400, 0.05),
        ("by a clock that slows", 19.3, 400, 0.05),
        ("more time than steps", 15.1, 30, 0.1),
    ],
)
def test_a_clock_that_ticks_alike_takes_the_recorded_decisions(
    name: str, seconds: float, most: int, warmup_fraction: float, clock: Clock
) -> None:
    """A step takes a quarter of a second; from step 48 on half a second, where the clock slows."""
    steps, expected = by_clock(seconds, most, warmup_fraction), recorded("tuning", name)
    rates: list[float] = []
    assert steps.begin()
    while len(rates) < steps.last:
        clock.now += 0.5 if "slows" in name and len(rates) >= 48 else 0.25
        rates.append(steps.schedule.share(len(rates)))
        steps.decide(len(rates))
    assert steps.decided() == {"max_steps": most, "decisions": expected.decisions}
    assert rates == pytest.approx(expected.rates, rel=1e-12)


def test_without_time_nothing_is_trained_and_a_replay_trains_nothing(clock: Clock) -> None:
    steps = by_clock(0.0, 50, 0.1)
    assert not steps.begin() and steps.last == 0
    assert steps.decided() == {"max_steps": 50, "decisions": [(0, 0)]}
    replay = plan_steps(SftConfig(**steps.decided() | {"decisions": ((0, 0),)}), 10_000, ENDLESS)
    assert not replay.begin() and replay.decided() == steps.decided()
    assert 0 < replay.schedule.share(0) <= 1, "the optimizer asks for it all the same"
