"""What a stage reads of time: its own seconds, their end, and what it keeps in reserve."""

from pathlib import Path

import psutil
import pytest

from components.core.config import Settings
from components.core.errors import ArtifactError
from components.deadline import budget
from components.deadline.budget import Budget, process_seconds
from components.deadline.config import TimePlan

PLAN = TimePlan(mode="deadline", deadline_hours=0.2, stage_seconds={"sft": 45.0})
FIXED = PLAN.model_copy(update={"mode": "fixed"})


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self, created: float) -> None:
        self.created = created
        self.now = created + 5.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - self.created + 7000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """One that stands five seconds after this process began."""
    clock = Clock(psutil.Process().create_time())
    monkeypatch.setattr(budget, "time", clock)
    return clock


def test_startup_counts_and_the_reserve_is_kept(clock: Clock) -> None:
    whole = Budget.of(PLAN, "sft", Settings())
    assert whole.record() == {"startup_seconds": pytest.approx(5.0), "given_seconds": 45.0}
    assert whole.seconds_left == pytest.approx(40.0)
    kept = whole.keep(8.0)
    clock.now += 10.0
    assert kept.elapsed_seconds == pytest.approx(15.0)
    assert (whole.seconds_left, kept.seconds_left) == (pytest.approx(30.0), pytest.approx(22.0))
    assert kept.ends_at == pytest.approx(clock.created + 45.0 - 8.0)
    clock.now += 30.0
    assert kept.seconds_left == pytest.approx(-8.0) and kept.ends_at == pytest.approx(clock.created + 37.0)


def test_the_end_that_the_cycle_sets_stands_above_the_plan(clock: Clock) -> None:
    ends_at = clock.now + 60.0
    corrected = Budget.of(PLAN, "sft", Settings(stage_ends_at=ends_at)).keep(12.0)
    assert corrected.seconds == pytest.approx(65.0)
    assert corrected.ends_at == pytest.approx(ends_at - 12.0)


def test_in_fixed_mode_no_clock_ends_a_stage(clock: Clock) -> None:
    endless = Budget.of(FIXED, "sft", Settings(stage_ends_at=clock.now)).keep(3.0)
    assert (endless.seconds, endless.seconds_left, endless.ends_at) == (None, None, None)
    assert endless.record() == {"startup_seconds": pytest.approx(5.0), "given_seconds": None}


def test_a_process_that_was_there_long_before_has_no_startup(clock: Clock) -> None:
    assert process_seconds() == pytest.approx(5.0)
    clock.now += budget.MAX_STARTUP_SECONDS
    assert process_seconds() == 0.0
    assert Budget.of(PLAN, "sft", Settings()).ends_at == pytest.approx(clock.now + 45.0)


def test_only_what_a_plan_says_of_time_is_read_and_errors_name_it(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(PLAN.model_dump_json()[:-1] + ', "shape": {"layers": 4}}')
    assert Budget.read(tmp_path, "sft").seconds == 45.0
    with pytest.raises(ArtifactError, match="stage_seconds has no align; run plan again"):
        Budget.read(tmp_path, "align")
    path.write_text("{}")
    with pytest.raises(ArtifactError, match=r"plan\.json: cannot be read as a plan: .*; run plan again") as caught:
        Budget.read(tmp_path, "sft")
    assert "\n" not in str(caught.value)
