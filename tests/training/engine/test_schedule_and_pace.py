"""Rates over steps, and the decisions that a clock takes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.training.engine.pace import Pace
from components.training.engine.schedule import Schedule, fixed
from tests.rates import recorded


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("fixed steps", fixed(5, 0.02, [(16, 40)])),
        ("a cosine", fixed(3, 0.1, [(0, 30)], "cosine")),
        ("a replay", fixed(5, 0.02, [(20, 50), (30, 44), (33, 47)])),
    ],
)
def test_steps_decided_in_advance_have_the_recorded_rates_bit_for_bit(name: str, schedule: Schedule) -> None:
    rates = recorded("pretraining", name).rates
    assert [schedule.share(step) for step in range(len(rates))] == rates


@pytest.mark.parametrize(
    ("name", "schedule", "seconds", "decay_share"),
    [
        ("by the clock", Schedule(warmup_steps=5, final_share=0.02), 15.1, 0.6),
        ("by a clock that slows", Schedule(warmup_steps=5, final_share=0.02), 19.3, 0.6),
        ("a cosine by the clock", Schedule(warmup_steps=5, final_share=0.1, decay="cosine"), 15.1, 1.0),
    ],
)
def test_a_clock_that_ticks_alike_takes_the_recorded_decisions(
    name: str, schedule: Schedule, seconds: float, decay_share: float
) -> None:
    """A step takes a quarter of a second; from step 48 on half a second, where the clock slows."""
    pace, expected = Pace(training_seconds=seconds, decay_share=decay_share), recorded("pretraining", name)
    rates: list[float] = []
    spent = 0.0
    while schedule.total_steps is None or len(rates) < schedule.total_steps:
        spent += 0.5 if "slows" in name and len(rates) >= 48 else 0.25
        rates.append(schedule.share(len(rates)))
        pace.decide(schedule, len(rates), spent)
    assert (schedule.decisions, rates) == (expected.decisions, expected.rates)


def test_a_share_of_the_way_rises_and_the_rest_falls() -> None:
    schedule = Schedule(warmup_share=0.1, final_share=0.0, decisions=[(0, 100)])
    shares = [schedule.share(step) for step in range(101)]
    assert shares[0] == pytest.approx(0.1) and shares[:10] == sorted(shares[:10])
    assert shares[10:] == pytest.approx([(100 - step) / 90 for step in range(10, 101)])
    schedule.decide(5, 20)
    assert schedule.share(5) == pytest.approx(shares[5]), "a decision bends the way where it is taken"
    assert schedule.share(6) > shares[6], "by the time that is left, not by the steps that were foreseen"
    assert schedule.share(20) == 0.0


def test_rises_stays_and_falls_to_the_final_share() -> None:
    schedule = fixed(10, 0.1, [(60, 100)])
    shares = [schedule.share(step) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[:10] == sorted(shares[:10])
    assert shares[10:61] == [1.0] * 51
    assert shares[60:] == sorted(shares[60:], reverse=True)
    assert shares[80] == pytest.approx(0.55)
    assert schedule.share(100) == pytest.approx(0.1)


def test_a_new_end_bends_the_line_where_it_was_decided() -> None:
    schedule = fixed(0, 0.0, [(100, 200), (150, 250)])
    assert schedule.share(150) == pytest.approx(0.5)
    assert schedule.share(200) == pytest.approx(0.25)
    assert schedule.share(250) == pytest.approx(0.0)
    assert (schedule.decay_start_step, schedule.total_steps) == (100, 250)


def test_a_cosine_falls_over_the_whole_run_and_keeps_falling_when_its_end_moves() -> None:
    schedule = fixed(0, 0.1, [(0, 100)], "cosine")
    for step in range(101):
        assert schedule.share(step) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * step / 100)) / 2)
    moved = fixed(0, 0.1, [(0, 100), (40, 160)], "cosine")
    shares = [moved.share(step) for step in range(161)]
    assert shares[:41] == [schedule.share(step) for step in range(41)]
    assert shares == sorted(shares, reverse=True)
    assert shares[160] == pytest.approx(0.1)


def test_decisions_that_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot end at step 5"):
        fixed(0, 0.0, [(10, 5)])
    with pytest.raises(ValueError, match="comes after one at step 10"):
        fixed(0, 0.0, [(10, 20), (10, 30)])


def run_by_clock(pace: Pace, schedule: Schedule, seconds_of: list[float]) -> tuple[int, float]:
    """Steps and seconds when step i takes seconds_of[i % n]."""
    step, seconds = 0, 0.0
    while schedule.total_steps is None or step < schedule.total_steps:
        seconds += seconds_of[step % len(seconds_of)]
        step += 1
        pace.decide(schedule, step, seconds)
    return step, seconds


@given(st.lists(st.floats(0.05, 0.5), min_size=1, max_size=7), st.floats(0.2, 0.9) | st.just(1.0))
def test_the_budget_is_met_whatever_the_speed(seconds_of: list[float], decay_share: float) -> None:
    schedule = Schedule(warmup_steps=0, final_share=0.0)
    _, seconds = run_by_clock(Pace(training_seconds=100.0, decay_share=decay_share), schedule, seconds_of)
    assert 95.0 <= seconds <= 102.0


def test_a_machine_that_slows_down_during_the_decay_still_meets_the_budget() -> None:
    schedule = Schedule(warmup_steps=0, final_share=0.0)
    step, seconds = run_by_clock(Pace(training_seconds=100.0, decay_share=0.5), schedule, [0.1] * 700 + [0.3] * 1000)
    assert 95.0 <= seconds <= 105.0
    assert len(schedule.decisions) > 1
    replayed = fixed(0, 0.0, schedule.decisions)
    assert [replayed.share(each) for each in range(step)] == [schedule.share(each) for each in range(step)]
    falling = [schedule.share(each) for each in range(schedule.decisions[0][0], step)]
    assert falling == sorted(falling, reverse=True)


def test_a_run_that_was_broken_off_ends_in_time_all_the_same() -> None:
    """100 s were given, the run stood still for 20 of them after 40 s of training: 40 are left."""
    pace, schedule = (
        Pace(training_seconds=100.0, decay_share=0.5, left_seconds=40.0),
        Schedule(warmup_steps=0, final_share=0.0),
    )
    pace.resumed(40.0)
    step, seconds = 400, 40.0
    while schedule.total_steps is None or step < schedule.total_steps:
        step, seconds = step + 1, seconds + 0.1
        pace.decide(schedule, step, seconds)
    assert 78.0 <= seconds <= 81.0
    first = Pace(training_seconds=100.0, decay_share=0.5, left_seconds=500.0)
    first.resumed(0.0)
    assert first.training_seconds == 100.0


def test_a_run_ends_when_its_time_is_up_or_its_steps_are_done() -> None:
    schedule = Schedule(warmup_share=0.1, final_share=0.0, decisions=[(0, 100)])
    pace = Pace(training_seconds=10.0, decay_share=1.0, max_steps=100)
    for step in range(1, 99):
        pace.decide(schedule, step, 0.05 * step)
    assert schedule.total_steps == 100, "time for more, and no more to do"
    pace.decide(schedule, 99, 10.05)
    assert schedule.decisions == [(0, 100), (99, 99)], "not one step more"
    pace.decide(schedule, 99, 11.0)
    assert schedule.total_steps == 99
