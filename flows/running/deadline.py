"""The deadline of a running cycle: what each stage that ends by the clock gets when it starts, what each one took.

The plan divides the time once; here what is really left is divided again whenever such a stage starts, so that one that
was late shrinks what follows, never checks or evaluation, and one that was early lets it grow.
"""

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from components.core.config import Settings, digest_of
from components.core.errors import ConfigError
from components.core.graph.stages import Stage
from components.deadline import durations
from components.deadline.config import PLAN, START, TimePlan
from components.deadline.division import SECONDS_PER_HOUR, Needs, deadline_seconds, divide, shortest_hours
from components.deadline.durations import Duration
from components.machine import services
from dashboards.report.cycle_record import StageResult
from flows.running import graph
from flows.running.params import Params

# A plan is off by so much before anybody hears of it.
NOTED_SECONDS, NOTED_SHARE = 5.0, 0.05
Note = Callable[[str], None]


def parameters_of(params: Params, stage: str) -> str:
    """Digest of what a stage has to do; other parameters are another amount of work."""
    if stage == START:
        return ""
    parts = [params.release, params.serving] if stage == "release" else [getattr(params, stage)]
    return digest_of([each.digest for each in parts])


def comparable(params: Params, state: Path) -> list[Duration]:
    """What stages took with the parameters that they have now."""
    return [each for each in durations.read(state) if each.parameters == parameters_of(params, each.stage)]


class Deadline:
    """One cycle's. `names` are its stages in their order, `release` among them when it is asked for; a clock ends those
    `by_clock`. `note` takes a line for who watches."""

    def __init__(
        self, settings: Settings, params: Params, names: Sequence[str], by_clock: Collection[str], note: Note
    ) -> None:
        assert settings.cycle and settings.cycle_started_at is not None, "a deadline belongs to a cycle"
        self._cycle, self._started_at = settings.cycle, settings.cycle_started_at
        self._settings, self._params, self._note = settings, params, note
        self._names, self._by_clock = list(names), by_clock
        self._durations = comparable(params, settings.state)
        if not settings.prefect_url and services.running(settings, "prefect") is None:
            self._append(START, time.time() - self._started_at, 0.0, None)  # with a server of its own, as measured
        durations.write(settings.state, self._durations)  # `plan` reads them too

    def seconds_of(self, stage: str, plan: TimePlan | None, now: float) -> float | None:
        """What a stage that starts now gets, start-up included; None where no clock ends it. Notes a corrected plan."""
        if stage not in self._by_clock or plan is None or plan.mode != "deadline":
            return None
        needs = Needs(self._params.plan, self._durations, self._cycle)
        following = self._names[self._names.index(stage) :]
        elapsed = now - self._started_at
        seconds = divide(needs, elapsed, following)[stage]
        planned = plan.stage_seconds.get(stage, needs.of(stage).wanted)
        if abs(seconds - planned) > max(NOTED_SECONDS, NOTED_SHARE * planned):
            left = deadline_seconds(needs.config) - elapsed
            lack = sum(needs.of(name).minimum for name in following) - left
            late = sum(plan.stage_seconds.get(name, needs.of(name).wanted) for name in following) - left
            why = _why(seconds < planned, late, left, lack)
            self._note(f"plan corrected: {stage} gets {seconds:.0f} s instead of {planned:.0f}, {why}")
        return seconds

    def keep(self, result: StageResult, seconds: float | None) -> None:
        """Note how long a stage took that really ran, and what it got, for what follows and for later cycles."""
        if result.status != "ran":
            return
        startup_seconds = max(0.0, result.seconds - result.work_seconds)
        self._append(result.name, startup_seconds, result.work_seconds, seconds)
        durations.write(self._settings.state, self._durations)

    def _append(self, stage: str, startup_seconds: float, work_seconds: float, given_seconds: float | None) -> None:
        """Note one run, at the pace that it leaves the machine with."""
        ran = Duration(
            cycle=self._cycle,
            stage=stage,
            parameters=parameters_of(self._params, stage),
            startup_seconds=startup_seconds,
            work_seconds=work_seconds,
            given_seconds=given_seconds,
            pace=1.0,
        )
        pace = Needs(self._params.plan, [*self._durations, ran], self._cycle).pace
        self._durations.append(ran.model_copy(update={"pace": pace}))


def _why(less: bool, late: float, left: float, lack: float) -> str:
    """Why a stage gets less or more than planned: it is late or early, or what follows needs more or less."""
    if lack > 1:
        return f"{left:.0f} s are left and {left + lack:.0f} needed: the deadline will be missed, nothing is left out"
    if less == (late > 0):
        return f"the cycle is {abs(late):.0f} s {'late' if late > 0 else 'early'}"
    return f"what follows needs {'more' if less else 'less'} time than planned"


def require_possible(params: Params, settings: Settings, stages: Sequence[Stage], before: Params | None) -> None:
    """Refuse, before anything is started, a deadline that cannot be met. Raises ConfigError with the shortest one.

    `before` are the parameters on disk: a stage whose section is another than there will run, whatever DVC says now.
    """
    names = [each.name for each in stages]
    if params.plan.mode != "deadline" or PLAN not in names:
        return
    needs = Needs(params.plan, comparable(params, settings.state))
    if params.plan.hours >= shortest_hours(needs, 0.0, [START, *names, "release"]):
        return
    current = graph.current_stages(stages) if before else set()
    unchanged = [each for each in names if each in current and getattr(before, each) == getattr(params, each)]
    if PLAN in unchanged:
        return
    to_come = [START, *(name for name in (*names, "release") if name not in unchanged)]
    shortest = shortest_hours(needs, 0.0, to_come)
    if params.plan.hours < shortest:
        raise ConfigError(
            f"plan.hours is {params.plan.hours:g} ({params.plan.hours * SECONDS_PER_HOUR:.0f} s); with every check, "
            f"the evaluation and {params.plan.minimum_training_seconds:.0f} s of pretraining the shortest possible "
            f"here is {shortest:.3f}"
        )
