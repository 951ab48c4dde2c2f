"""What a stage reads of time: its own seconds, their end, and what it keeps in reserve."""

from pathlib import Path

import psutil
import pytest

from components.core.errors import ArtifactError
from components.core.graph.closure import ROOT, closure
from components.deadline import budget
from components.deadline.budget import Budget, process_seconds
from components.deadline.config import TimePlan

PLAN = TimePlan(mode="deadline", deadline_hours=0.2, stage_seconds={"sft": 45.0})


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


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The artifact of a plan, outside a cycle."""
    monkeypatch.delenv("OVERNIGHT_STAGE_ENDS_AT", raising=False)
    (tmp_path / "plan.json").write_text(PLAN.model_dump_json())
    return tmp_path


def test_startup_counts_and_the_reserve_is_kept(clock: Clock, plan: Path) -> None:
    whole = Budget.read(plan, "sft")
    assert whole.record() == {"startup_seconds": pytest.approx(5.0), "given_seconds": 45.0}
    assert whole.seconds_left == pytest.approx(40.0)
    kept = whole.keep(8.0)
    clock.now += 10.0
    assert kept.elapsed_seconds == pytest.approx(15.0)
    assert (whole.seconds_left, kept.seconds_left) == (pytest.approx(30.0), pytest.approx(22.0))
    assert kept.ends_at == pytest.approx(clock.created + 45.0 - 8.0)
    clock.now += 30.0
    assert kept.seconds_left == pytest.approx(-8.0) and kept.ends_at == pytest.approx(clock.created + 37.0)


def test_the_end_that_the_cycle_sets_stands_above_the_plan(
    clock: Clock, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_at = clock.now + 60.0
    monkeypatch.setenv("OVERNIGHT_STAGE_ENDS_AT", repr(ends_at))
    corrected = Budget.read(plan, "sft").keep(12.0)
    assert corrected.seconds == pytest.approx(65.0)
    assert corrected.ends_at == pytest.approx(ends_at - 12.0)


def test_in_fixed_mode_no_clock_ends_a_stage(clock: Clock, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_STAGE_ENDS_AT", repr(clock.now))
    (plan / "plan.json").write_text(PLAN.model_copy(update={"mode": "fixed"}).model_dump_json())
    endless = Budget.read(plan, "align").keep(3.0)
    assert (endless.seconds, endless.seconds_left, endless.ends_at) == (None, None, None)
    assert endless.record() == {"startup_seconds": pytest.approx(5.0), "given_seconds": None}


def test_a_process_that_was_there_long_before_has_no_startup(clock: Clock, plan: Path) -> None:
    assert process_seconds() == pytest.approx(5.0)
    clock.now += budget.MAX_STARTUP_SECONDS
    assert process_seconds() == 0.0
    assert Budget.read(plan, "sft").ends_at == pytest.approx(clock.now + 45.0)


def test_only_what_a_plan_says_of_time_is_read_and_errors_name_it(plan: Path) -> None:
    path = plan / "plan.json"
    path.write_text(PLAN.model_dump_json()[:-1] + ', "shape": {"layers": 4}}')
    assert Budget.read(plan, "sft").seconds == 45.0
    with pytest.raises(ArtifactError, match="stage_seconds has no align; run plan again"):
        Budget.read(plan, "align")
    path.write_text("{}")
    with pytest.raises(ArtifactError, match=r"plan\.json: cannot be read as a plan: .*; run plan again") as caught:
        Budget.read(plan, "sft")
    assert "\n" not in str(caught.value)


def test_a_stage_that_reads_its_budget_depends_on_no_parameters_of_training() -> None:
    """preferences, which trains nothing and does not wait for torch."""
    code = {path.relative_to("components").as_posix() for path in closure(ROOT / "components/alignment/preferences.py")}
    rates = {"training/parameters/__init__.py", "training/parameters/rates.py"}  # of fine-tuning, in one config
    assert {path for path in code if path.startswith("training/")} == rates
    assert {path for path in code if path.startswith("deadline/")} == {"deadline/budget.py", "deadline/config.py"}
    assert "alignment/objectives/tuning.py" not in code, "which imports torch: 8 s of its start-up"
