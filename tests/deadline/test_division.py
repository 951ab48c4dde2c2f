"""Seconds of every stage under a deadline, with simulated stage times: no clock, no machine."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.config import Settings
from components.core.errors import ConfigError, DataError
from components.deadline import durations
from components.deadline.config import DeadlineConfig, StageReserves
from components.deadline.division import (
    MARGIN_SHARE,
    Needs,
    deadline_seconds,
    divide,
    elapsed_seconds,
    share_out,
    shortest_hours,
    stage_seconds,
)
from components.deadline.durations import Duration

BEFORE, ORDER = StageReserves().around_pretrain()
TIMED = [name for name in ORDER if StageReserves().ends_by_clock(name)]


def ran(stage: str, pace: float = 1.0, cycle: str = "now", budget: float | None = None, **seconds: float) -> Duration:
    """A run of a stage whose start-up took `pace` times its reserve."""
    reserve = dict(DeadlineConfig().reserves)[stage]
    startup = seconds.get("startup", pace * reserve.startup)
    work = seconds.get("work", pace * reserve.work)
    return Duration(
        cycle=cycle,
        stage=stage,
        parameters="",
        startup_seconds=startup,
        work_seconds=work,
        given_seconds=budget,
        pace=pace,
    )


def early(pace: float) -> list[Duration]:
    return [ran(stage, pace) for stage in BEFORE if stage != "plan"]


@given(st.floats(0.25, 48), st.floats(0, 200), st.floats(0.5, 1.5))
def test_the_stages_fill_the_deadline_exactly(hours: float, elapsed: float, pace: float) -> None:
    needs = Needs(DeadlineConfig(hours=hours), early(pace), "now")
    seconds = stage_seconds(needs, elapsed)
    assert elapsed + sum(seconds[name] for name in ORDER) == pytest.approx((1 - MARGIN_SHARE) * hours * 3600)
    for name in ORDER:
        need = needs.of(name)
        assert need.minimum - 1e-6 <= seconds[name] <= need.maximum + 1e-6


@given(st.floats(0.2, 48), st.floats(0, 3000), st.floats(0, 500), st.sampled_from(TIMED))
def test_a_late_stage_gives_no_later_one_more_and_checks_what_they_need(
    hours: float, elapsed: float, later: float, stage: str
) -> None:
    needs = Needs(DeadlineConfig(hours=hours))
    following = {name: needs.of(name) for name in ORDER[ORDER.index(stage) :]}
    left = deadline_seconds(needs.config) - elapsed
    before, after = share_out(left, following), share_out(left - later, following)
    assert all(after[name] <= before[name] + 1e-6 for name in following)
    for name in ("evaluate", "release"):
        assert after[name] == before[name] == following[name].minimum
    assert all(after[name] >= following[name].minimum - 1e-6 for name in following)
    fits = sum(each.minimum for each in following.values()) <= left - later
    if fits:
        assert sum(after.values()) <= left - later + 1e-6


@given(st.lists(st.floats(-0.3, 0.3), min_size=4, max_size=4), st.floats(0.2, 1.0))
def test_stages_that_end_early_or_late_leave_the_deadline_met(errors: list[float], hours: float) -> None:
    """Each timed stage misses its budget by up to 30 %; what follows makes up for it while it can."""
    config = DeadlineConfig(hours=hours)
    needs, now = Needs(config), 80.0
    stage_seconds(needs, now)
    for position, stage in enumerate(ORDER):
        budget = divide(needs, now, ORDER[position:])[stage]
        error = errors[TIMED.index(stage)] if stage in TIMED else 0.0
        last = stage == "align"
        now += budget * (1 if last else 1 + error * (0.25 if stage == "pretrain" else 1))
    room = 0.25 * 0.3 * 0.7 * hours * 3600  # what pretrain, a quarter of its error, may have eaten of the others' room
    assert now <= hours * 3600 + max(0.0, room)


def test_a_slow_machine_shrinks_training_and_not_the_evaluation() -> None:
    config = DeadlineConfig(hours=0.25)
    quiet, busy = Needs(config, early(1.0), "now"), Needs(config, early(2.0), "now")
    assert (quiet.pace, busy.pace) == (pytest.approx(1.0), pytest.approx(2.0))
    one, two = stage_seconds(quiet, 60), stage_seconds(busy, 120)
    assert two["pretrain"] < one["pretrain"]
    assert two["evaluate"] == pytest.approx(2 * one["evaluate"])


def test_only_the_last_stages_say_how_fast_the_machine_is_now() -> None:
    needs = Needs(DeadlineConfig(), [*early(4.0), *early(1.5)], "now")
    assert needs.pace == pytest.approx(1.5)
    assert Needs(DeadlineConfig(), [ran("ingest", work=500.0, startup=2.5)], "now").pace == 1.0, (
        "more data is no slowness"
    )


def test_earlier_cycles_say_what_a_stage_takes() -> None:
    earlier = [ran("evaluate", 2.0, "before", startup=10, work=190), ran("clean", 1.0, "before", startup=2, work=58)]
    needs = Needs(DeadlineConfig(), [*earlier, ran("clean", 1.0, startup=4, work=86)], "now")
    assert needs.pace == pytest.approx(1.5), "90 s instead of 60"
    assert needs.of("evaluate").minimum == pytest.approx(150.0), "200 s at a pace of 2"
    unused = ran("align", 1.0, "before", budget=100.0, startup=14, work=26)
    assert Needs(DeadlineConfig(hours=24), [unused], "now").of("align").wanted == pytest.approx(40.0)


def test_too_short_a_deadline_names_the_shortest_and_that_one_is_accepted() -> None:
    with pytest.raises(ConfigError, match=r"plan\.hours is 0\.05; 100 s go to what comes before") as caught:
        stage_seconds(Needs(DeadlineConfig(hours=0.05)), 100.0)
    shortest = float(str(caught.value).rsplit(" ", 1)[1])
    needs = Needs(DeadlineConfig(hours=shortest))
    seconds = stage_seconds(needs, 100.0)
    assert seconds["pretrain"] - needs.around_training >= needs.config.minimum_training_seconds - 1e-6
    assert shortest_hours(needs, 100.0, ORDER) == shortest
    with pytest.raises(ConfigError):
        stage_seconds(Needs(DeadlineConfig(hours=shortest - 0.002)), 100.0)


def test_the_time_that_is_gone_comes_from_the_cycle_or_from_the_reserves() -> None:
    needs = Needs(DeadlineConfig())
    assert elapsed_seconds(needs, Settings(cycle_started_at=1000.0), 1100.0) == 100.0
    reserves = dict(DeadlineConfig().reserves)
    assert elapsed_seconds(needs, Settings(), 0.0) == sum(reserves[name].seconds for name in BEFORE)


def test_the_latest_runs_are_kept_and_a_foreign_file_is_named(tmp_path: Path) -> None:
    assert durations.read(tmp_path) == []
    durations.write(tmp_path, [ran("clean", cycle=str(number)) for number in range(9)] + [ran("align")])
    kept = durations.read(tmp_path)
    assert [each.cycle for each in kept] == ["4", "5", "6", "7", "8", "now"]
    (tmp_path / durations.NAME).write_text("{}")
    with pytest.raises(DataError, match="delete it, the next cycle measures anew"):
        durations.read(tmp_path)


def test_pretraining_takes_all_that_is_left() -> None:
    assert math.isinf(Needs(DeadlineConfig()).of("pretrain").maximum)
    day = stage_seconds(Needs(DeadlineConfig(hours=24)), 100)
    assert day["sft"] == 300 and day["pretrain"] > 0.99 * 24 * 3600 - 900
