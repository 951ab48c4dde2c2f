"""The deadline of a running cycle: what each stage that ends by the clock gets when it starts, what each one took.

The plan divides the time once; here what is really left is divided again whenever such a stage starts, so that one that
was late shrinks what follows, never checks or evaluation, and one that was early lets it grow.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from components.core import services
from components.core.config import Settings, digest_of
from components.core.errors import ConfigError
from components.training import durations
from components.training.budget import Needs, deadline_seconds, share_out, shortest_hours
from components.training.config import Plan
from components.training.durations import Duration
from components.training.groups.reserves import START, TIMED
from flows import graph
from flows.params import Params
from flows.stage import StageResult

# The command line's process starts Prefect's server before the cycle; one that is older was not started for a cycle.
MAX_STARTUP_SECONDS = 120.0
# A plan is off by so much before anybody is told.
TOLD_SECONDS, TOLD_SHARE = 5.0, 0.05


def began() -> float:
    """When the command was given, seconds since the epoch: a person's deadline counts from there."""
    now, created = time.time(), psutil.Process().create_time()
    return created if now - created < MAX_STARTUP_SECONDS else now


def parameters_of(params: Params, stage: str) -> str:
    """Digest of what a stage is told to do; other parameters are another amount of work."""
    if stage == START:
        return ""
    parts = [params.release, params.serving] if stage == "release" else [getattr(params, stage)]
    return digest_of([each.digest for each in parts])


def comparable(params: Params, state: Path) -> list[Duration]:
    """What stages took with the parameters that they have now."""
    return [each for each in durations.read(state) if each.parameters == parameters_of(params, each.stage)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The seconds of one stage that ends by the clock, start-up included; `told` when they are not as planned."""

    seconds: float
    ends_at: float
    told: str | None


class Deadline:
    """One cycle's. `names` are its stages in their order, `release` among them when it is asked for."""

    def __init__(self, settings: Settings, params: Params, names: Sequence[str]) -> None:
        assert settings.cycle and settings.cycle_started_at is not None, "a deadline belongs to a cycle"
        self._settings = settings
        self._cycle, self._started_at = settings.cycle, settings.cycle_started_at
        self._params = params
        self._names = list(names)
        self._durations = comparable(params, settings.state)
        if not settings.prefect_url and services.running(settings, "prefect") is None:
            self._keep(START, time.time() - self._started_at, 0.0, None)  # with a server of its own, as measured
        durations.write(settings.state, self._durations)  # `plan` reads them too

    def give(self, stage: str, plan: Plan | None, now: float) -> Given | None:
        """What a stage that starts now gets; None where no clock ends it."""
        if stage not in TIMED or plan is None or plan.mode != "deadline":
            return None
        config = self._params.plan
        needs = Needs(config, self._durations, self._cycle)
        following = {name: needs.of(name) for name in self._names[self._names.index(stage) :]}
        left = self._started_at + deadline_seconds(config) - now
        seconds = share_out(left, following)[stage]
        lack = sum(each.minimum for each in following.values()) - left
        planned_left = sum(plan.stage_seconds[name] for name in following)
        why = _why(seconds < plan.stage_seconds[stage], planned_left - left, left, lack)
        told = _told(stage, seconds, plan.stage_seconds[stage], why)
        return Given(seconds=seconds, ends_at=now + seconds, told=told)

    def took(self, result: StageResult, given: Given | None) -> None:
        """Keep how long a stage took that really ran, for what follows and for later cycles."""
        if result.status != "ran":
            return
        startup_seconds = max(0.0, result.seconds - result.work_seconds)
        self._keep(result.name, startup_seconds, result.work_seconds, given.seconds if given else None)
        durations.write(self._settings.state, self._durations)

    def _keep(self, stage: str, startup_seconds: float, work_seconds: float, given_seconds: float | None) -> None:
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


def _told(stage: str, given: float, planned: float, why: str) -> str | None:
    """One line for who watches, when the plan was corrected by more than a little."""
    if abs(given - planned) <= max(TOLD_SECONDS, TOLD_SHARE * planned):
        return None
    return f"plan corrected: {stage} gets {given:.0f} s instead of {planned:.0f}, {why}"


def _why(less: bool, late: float, left: float, lack: float) -> str:
    """Why a stage gets less or more than planned: it is late or early, or what follows needs more or less."""
    if lack > 1:
        return f"{left:.0f} s are left and {left + lack:.0f} needed: the deadline will be missed, nothing is left out"
    if less == (late > 0):
        return f"the cycle is {abs(late):.0f} s {'late' if late > 0 else 'early'}"
    return f"what follows needs {'more' if less else 'less'} time than planned"


def require_possible(params: Params, settings: Settings, stages: Sequence[graph.Stage], before: Params | None) -> None:
    """Refuse, before anything is started, a deadline that cannot be met. Raises ConfigError with the shortest one.

    `before` are the parameters on disk: a stage whose section is another than there will run, whatever DVC says now.
    """
    names = [each.name for each in stages]
    if params.plan.mode != "deadline" or "plan" not in names:
        return
    needs = Needs(params.plan, comparable(params, settings.state))
    if params.plan.hours >= shortest_hours(needs, 0.0, [START, *names, "release"]):
        return
    current = graph.current_stages(stages) if before else set()
    unchanged = [each for each in names if each in current and getattr(before, each) == getattr(params, each)]
    if "plan" in unchanged:
        return
    to_come = [START, *(name for name in (*names, "release") if name not in unchanged)]
    shortest = shortest_hours(needs, 0.0, to_come)
    if params.plan.hours < shortest:
        raise ConfigError(
            f"plan.hours is {params.plan.hours:g} ({params.plan.hours * 3600:.0f} s); with every check, the evaluation "
            f"and {params.plan.minimum_training_seconds:.0f} s of pretraining the shortest possible here is "
            f"{shortest:.3f}"
        )
