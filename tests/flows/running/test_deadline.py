"""A cycle's seconds while it runs, on simulated times: who gets what when something was late, and who is told."""

import time
from pathlib import Path

import pytest

from components.core.config import Settings
from components.core.errors import ConfigError
from components.core.graph.stages import Stage
from components.deadline import durations
from components.deadline.config import StageReserves, TimePlan
from components.deadline.division import Needs, stage_seconds
from dashboards.report.cycle_record import StageResult
from flows.running import deadline
from flows.running.deadline import Deadline, parameters_of, require_possible
from flows.running.params import Params, defaults

(*BEFORE_PLAN, PLAN), FOLLOWING = StageReserves().around_pretrain()
NAMES = [*BEFORE_PLAN, PLAN, *FOLLOWING]
BY_CLOCK = ("pretrain", "sft", "preferences", "align")
HOURS = 0.25
STARTED = 1000.0


def params_of(hours: float = HOURS, mode: str = "deadline") -> Params:
    params = defaults()
    return params.model_copy(update={"plan": params.plan.model_copy(update={"hours": hours, "mode": mode})})


def plan_at(params: Params, elapsed: float) -> TimePlan:
    """A plan made when so much was gone."""
    seconds = stage_seconds(Needs(params.plan), elapsed)
    return TimePlan(mode=params.plan.mode, deadline_hours=params.plan.hours, stage_seconds=seconds)


def cycle(state: Path, params: Params, names: list[str] = NAMES, notes: list[str] | None = None) -> Deadline:
    settings = Settings(state=state, cycle="now", cycle_started_at=STARTED, prefect_url="http://elsewhere")
    return Deadline(settings, params, names, BY_CLOCK, [].append if notes is None else notes.append)


def result(name: str, seconds: float, work: float, status: str = "ran") -> StageResult:
    return StageResult(
        name=name,
        status=status,  # type: ignore[arg-type]
        seconds=seconds,
        work_seconds=work,
        digest="",
        peak_memory_bytes=0,
    )


def test_on_time_every_stage_gets_what_was_planned_and_nothing_is_noted(tmp_path: Path) -> None:
    params, notes = params_of(), list[str]()
    plan, now = plan_at(params, 80), STARTED + 80
    whole = cycle(tmp_path, params, notes=notes)
    for name in NAMES[NAMES.index("pretrain") :]:
        seconds = whole.seconds_of(name, plan, now)
        assert (seconds is not None) == (name in BY_CLOCK)
        if seconds is not None:
            assert seconds == pytest.approx(plan.stage_seconds[name])
        now += plan.stage_seconds[name]
    assert now == pytest.approx(STARTED + 0.99 * HOURS * 3600)
    assert not notes


def test_a_late_stage_shrinks_what_follows_and_an_early_one_lets_it_grow(tmp_path: Path) -> None:
    params, notes = params_of(), list[str]()
    plan = plan_at(params, 80)
    whole = cycle(tmp_path, params, notes=notes)
    begins = STARTED + 80 + plan.stage_seconds["pretrain"] + plan.stage_seconds["instructions"]
    late, early = whole.seconds_of("sft", plan, begins + 30), whole.seconds_of("sft", plan, begins - 30)
    assert late and early
    planned = plan.stage_seconds["sft"]
    assert late < planned < early
    assert notes[0] == f"plan corrected: sft gets {late:.0f} s instead of {planned:.0f}, the cycle is 30 s late"
    assert "30 s early" in notes[1]
    assert whole.seconds_of("sft", plan, begins + 300) == Needs(params.plan).of("sft").minimum
    assert "needed: the deadline will be missed, nothing is left out" in notes[2]
    first = whole.seconds_of("pretrain", plan, STARTED + 80 + 40)
    assert first == pytest.approx(plan.stage_seconds["pretrain"] - 40)
    assert whole.seconds_of("evaluate", plan, begins) is None, "no clock ends an evaluation"


def test_without_a_release_its_time_goes_to_training(tmp_path: Path) -> None:
    params = params_of()
    plan = plan_at(params, 80)
    seconds = cycle(tmp_path, params, NAMES[:-1]).seconds_of("pretrain", plan, STARTED + 80)
    assert seconds == pytest.approx(plan.stage_seconds["pretrain"] + plan.stage_seconds["release"])


def test_a_slow_stage_of_this_cycle_and_its_record_in_the_next_one(tmp_path: Path) -> None:
    params = params_of()
    plan = plan_at(params, 80)
    whole = cycle(tmp_path, params)
    for name in BEFORE_PLAN:
        whole.keep(result(name, 20.0, 15.0), None)  # twice the start-up
    whole.keep(result("evaluate", 0.1, 0.0, "cached"), None)
    slow = whole.seconds_of("pretrain", plan, STARTED + 120)
    assert slow and slow < plan.stage_seconds["pretrain"] - 40 - 50, "the evaluation will take twice as long"
    whole.keep(result("sft", 60.0, 40.0), 90.0)
    whole.keep(result("evaluate", 130.0, 120.0), None)
    kept = durations.read(tmp_path)
    assert [(each.stage, each.given_seconds) for each in kept[-2:]] == [("sft", 90.0), ("evaluate", None)]
    assert [each.stage for each in kept[:-2]] == BEFORE_PLAN
    changed = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"seed": 1})})
    assert parameters_of(changed, "evaluate") != parameters_of(params, "evaluate")
    cycle(tmp_path, changed)
    assert "evaluate" not in {each.stage for each in durations.read(tmp_path)}, "another evaluation, another amount"


def test_with_every_data_stage_cached_the_start_says_how_fast_the_machine_is(tmp_path: Path) -> None:
    params = params_of()
    began_at = time.time() - 45.0
    settings = Settings(state=tmp_path, cycle="now", cycle_started_at=began_at)
    whole = Deadline(settings, params, NAMES, BY_CLOCK, [].append)
    (start,) = durations.read(tmp_path)
    assert (start.stage, start.startup_seconds) == ("start", pytest.approx(45.0, abs=1.0))
    assert Needs(params.plan, [start], "now").pace == pytest.approx(3.0, abs=0.1)
    warm = start.model_copy(update={"startup_seconds": 6.0})
    assert Needs(params.plan, [warm], "now").pace == 1.0, "and never that it is fast"
    plan = plan_at(params, 80)
    seconds = whole.seconds_of("pretrain", plan, began_at + 80)
    assert seconds and seconds < plan.stage_seconds["pretrain"] - 100, "everything after it takes three times as long"


def test_fixed_mode_knows_no_clock(tmp_path: Path) -> None:
    params = params_of(mode="fixed")
    assert cycle(tmp_path, params).seconds_of("pretrain", plan_at(params, 80), STARTED) is None


def stages() -> list[Stage]:
    return [Stage(name=name, command="", dependencies=(), outputs=()) for name in NAMES[:-1]]


def test_an_impossible_deadline_is_refused_with_the_shortest_which_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state=tmp_path)
    monkeypatch.setattr(deadline.graph, "current_stages", lambda _: set())
    with pytest.raises(ConfigError, match=r"plan\.hours is 0\.01 \(36 s\).* shortest possible here is") as caught:
        require_possible(params_of(0.01), settings, stages(), params_of())
    shortest = float(str(caught.value).rsplit(" ", 1)[1])
    require_possible(params_of(shortest), settings, stages(), params_of())
    require_possible(params_of(0.01, "fixed"), settings, stages(), params_of())
    require_possible(params_of(0.01), settings, stages()[:3], params_of())
    monkeypatch.setattr(deadline.graph, "current_stages", lambda _: set(BEFORE_PLAN))
    require_possible(params_of(shortest - 0.012), settings, stages(), params_of())
    monkeypatch.setattr(deadline.graph, "current_stages", lambda _: {*BEFORE_PLAN, "plan"})
    require_possible(params_of(0.01), settings, stages(), params_of(0.01))
    with pytest.raises(ConfigError):
        require_possible(params_of(0.01), settings, stages(), params_of(0.02))
