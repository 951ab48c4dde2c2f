"""A cycle's seconds while it runs, on simulated times: who gets what when something was late, and who is told."""

import time
from pathlib import Path

import psutil
import pytest

from components.core.config import Settings
from components.core.errors import ConfigError
from components.training import durations
from components.training.budget import Needs, divide
from components.training.config import Plan
from components.training.groups.reserves import AFTER_PRETRAIN, BEFORE_PLAN
from components.training.plan import plan_fixed
from flows import deadline
from flows.deadline import Deadline, began, parameters_of, require_possible
from flows.graph import Stage
from flows.params import Params
from flows.stage import StageResult

NAMES = [*BEFORE_PLAN, "plan", "pretrain", *AFTER_PRETRAIN]
HOURS = 0.25
STARTED = 1000.0


def params_of(hours: float = HOURS, mode: str = "deadline") -> Params:
    params = Params()
    return params.model_copy(update={"plan": params.plan.model_copy(update={"hours": hours, "mode": mode})})


def plan_at(params: Params, elapsed: float) -> Plan:
    """A plan of deadline mode, made when so much was gone."""
    seconds = divide(Needs(params.plan), elapsed)
    return plan_fixed(params.plan, 512).model_copy(update={"mode": "deadline", "stage_seconds": seconds})


def cycle(state: Path, params: Params, names: list[str] = NAMES) -> Deadline:
    settings = Settings(state=state, cycle="now", cycle_started_at=STARTED, prefect_url="http://elsewhere")
    return Deadline(settings, params, names)


def result(name: str, seconds: float, work: float, status: str = "ran") -> StageResult:
    return StageResult(
        name=name,
        status=status,  # type: ignore[arg-type]
        seconds=seconds,
        work_seconds=work,
        digest="",
        peak_memory_bytes=0,
    )


def test_on_time_every_stage_gets_what_was_planned_and_nobody_is_told(tmp_path: Path) -> None:
    params = params_of()
    plan, now = plan_at(params, 80), STARTED + 80
    whole = cycle(tmp_path, params)
    for name in NAMES[NAMES.index("pretrain") :]:
        given = whole.give(name, plan, now)
        if given:
            assert given.seconds == pytest.approx(plan.stage_seconds[name]) and given.told is None
            assert given.ends_at == pytest.approx(now + given.seconds)
        now += plan.stage_seconds[name]
    assert now == pytest.approx(STARTED + 0.99 * HOURS * 3600)


def test_a_late_stage_shrinks_what_follows_and_an_early_one_lets_it_grow(tmp_path: Path) -> None:
    params = params_of()
    plan = plan_at(params, 80)
    whole = cycle(tmp_path, params)
    pretrain_ends = STARTED + 80 + plan.stage_seconds["pretrain"]
    late, early = whole.give("sft", plan, pretrain_ends + 30), whole.give("sft", plan, pretrain_ends - 30)
    assert late and early
    assert late.seconds < plan.stage_seconds["sft"] < early.seconds
    planned = plan.stage_seconds["sft"]
    assert (
        late.told == f"plan corrected: sft gets {late.seconds:.0f} s instead of {planned:.0f}, the cycle is 30 s late"
    )
    assert "30 s early" in str(early.told)
    behind = whole.give("sft", plan, pretrain_ends + 300)
    assert behind and behind.seconds == Needs(params.plan).of("sft").minimum
    assert "needed: the deadline will be missed, nothing is left out" in str(behind.told)
    first = whole.give("pretrain", plan, STARTED + 80 + 40)
    assert first and first.seconds == pytest.approx(plan.stage_seconds["pretrain"] - 40)
    assert whole.give("evaluate", plan, pretrain_ends) is None, "no clock ends an evaluation"


def test_without_a_release_its_time_goes_to_training(tmp_path: Path) -> None:
    params = params_of()
    plan = plan_at(params, 80)
    given = cycle(tmp_path, params, NAMES[:-1]).give("pretrain", plan, STARTED + 80)
    assert given and given.seconds == pytest.approx(plan.stage_seconds["pretrain"] + plan.stage_seconds["release"])


def test_a_slow_stage_of_this_cycle_and_its_record_in_the_next_one(tmp_path: Path) -> None:
    params = params_of()
    plan = plan_at(params, 80)
    whole = cycle(tmp_path, params)
    for name in BEFORE_PLAN:
        whole.took(result(name, 20.0, 15.0), None)  # twice the start-up
    whole.took(result("evaluate", 0.1, 0.0, "cached"), None)
    slow = whole.give("pretrain", plan, STARTED + 120)
    assert slow and slow.seconds < plan.stage_seconds["pretrain"] - 40 - 50, "the evaluation will take twice as long"
    whole.took(result("evaluate", 130.0, 120.0), None)
    kept = durations.read(tmp_path)
    assert [each.stage for each in kept] == [*BEFORE_PLAN, "evaluate"]
    changed = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"seed": 1})})
    assert parameters_of(changed, "evaluate") != parameters_of(params, "evaluate")
    cycle(tmp_path, changed)
    assert [each.stage for each in durations.read(tmp_path)] == list(BEFORE_PLAN), "another evaluation, another amount"


def test_with_every_data_stage_cached_the_start_says_how_fast_the_machine_is(tmp_path: Path) -> None:
    params = params_of()
    began_at = time.time() - 45.0
    whole = Deadline(Settings(state=tmp_path, cycle="now", cycle_started_at=began_at), params, NAMES)
    (start,) = durations.read(tmp_path)
    assert (start.stage, start.startup_seconds) == ("start", pytest.approx(45.0, abs=1.0))
    assert Needs(params.plan, [start], "now").pace == pytest.approx(3.0, abs=0.1)
    warm = start.model_copy(update={"startup_seconds": 6.0})
    assert Needs(params.plan, [warm], "now").pace == 1.0, "and never that it is fast"
    plan = plan_at(params, 80)
    given = whole.give("pretrain", plan, began_at + 80)
    assert given and given.seconds < plan.stage_seconds["pretrain"] - 100, (
        "everything after it takes three times as long"
    )


def test_fixed_mode_knows_no_clock(tmp_path: Path) -> None:
    params = params_of(mode="fixed")
    assert cycle(tmp_path, params).give("pretrain", plan_fixed(params.plan, 512), STARTED) is None


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


def test_the_deadline_counts_from_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    created = psutil.Process().create_time()
    monkeypatch.setattr(time, "time", lambda: created + 50)
    assert began() == created
    monkeypatch.setattr(time, "time", lambda: created + 500)
    assert began() == created + 500
