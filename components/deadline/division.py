"""Divide a deadline among the stages, and divide what is left of it again whenever one ends. Light: no torch.

Every stage has a need: what it takes at least, what it would like, and from where on more does not help. Checks,
evaluation and release need what they need; pretraining, which takes all that is left, and the stages of alignment
shrink and grow. The needs are those of `plan.reserves`, or what the stage took in earlier cycles of this workspace,
times the pace of this machine: how much slower than those figures it is now.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from components.core.config import Settings
from components.core.errors import ConfigError
from components.deadline.config import PRETRAIN, START, DeadlineConfig, StageReserve, TimedReserve
from components.deadline.durations import Duration

SECONDS_PER_HOUR = 3600
# To be early by this share costs little; to be late is to miss the deadline.
MARGIN_SHARE = 0.01
# The pace is that of the last stages of this cycle: what else the machine does comes and goes.
PACE_STAGES = 6
PACE_LIMITS = (0.5, 8.0)
# An earlier run is an expectation only where there are some, one may have been slow for reasons of its own.
RECORDS = 3
# A stage that ended this much before its time had no use for more.
EXHAUSTED_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Seconds of one stage, start-up included."""

    minimum: float
    wanted: float
    maximum: float


class Needs:
    """What every stage needs on this machine now, as far as this cycle and earlier ones tell."""

    def __init__(self, config: DeadlineConfig, durations: Sequence[Duration] = (), cycle: str | None = None) -> None:
        self.config = config
        self.reserves: dict[str, StageReserve] = dict(config.reserves)
        self._earlier = [each for each in durations if each.cycle != cycle]
        self.pace = self._pace([each for each in durations if each.cycle == cycle] if cycle else [])

    def of(self, stage: str) -> Need:
        """The need of one stage of the graph, or of `release`."""
        config = self.config
        if stage == PRETRAIN:
            least = self.around_training + config.minimum_training_seconds
            return Need(minimum=least, wanted=least, maximum=math.inf)
        reserve = self._reserve(stage)
        if not isinstance(reserve, TimedReserve):
            seconds = self.pace * self._usual(stage)
            return Need(minimum=seconds, wanted=seconds, maximum=seconds)
        least = self.pace * reserve.seconds
        most = max(least, self.pace * min(reserve.maximum, self._useful(stage)))
        wanted = min(most, max(least, reserve.share * config.hours * SECONDS_PER_HOUR))
        return Need(minimum=least, wanted=wanted, maximum=most)

    @property
    def startup(self) -> float:
        """Seconds of pretrain before its first step, compilation aside."""
        return self.pace * self.config.startup_seconds

    @property
    def finish(self) -> float:
        """Seconds of pretrain after its last step."""
        return self.pace * self.config.finish_seconds

    @property
    def around_training(self) -> float:
        """Both."""
        return self.startup + self.finish

    def _reserve(self, stage: str) -> StageReserve:
        """What is set aside for a stage; one that nobody measured yet gets what most of them get."""
        return self.reserves.get(stage, StageReserve())

    def _recorded(self, stage: str) -> list[Duration]:
        return [each for each in self._earlier if each.stage == stage][-RECORDS:]

    def _usual(self, stage: str) -> float:
        """Seconds at a pace of 1: the median of the last runs, else the reserve."""
        runs = [each.seconds / each.pace for each in self._recorded(stage)]
        return median(runs) if runs else self._reserve(stage).seconds

    def _useful(self, stage: str) -> float:
        """Seconds at a pace of 1 that a stage by the clock had use for in its last run."""
        for each in self._recorded(stage)[-1:]:
            if each.given_seconds is not None and each.seconds < EXHAUSTED_SHARE * each.given_seconds:
                return each.seconds / each.pace
        return math.inf

    def _pace(self, ran: Sequence[Duration]) -> float:
        """Measured over expected seconds of this cycle's last stages; 1 while none ran.

        Of their start-up and of all of them, and the lower one counts: more data than reserved for make the work
        slow on any machine, and imports suffer more from other processes than work does (4.1 times against 3.0 beside
        ten of them on two cores). Of stages and probes that end by the clock only the start-up tells.
        """
        recent = [each for each in ran if each.stage in self.reserves][-PACE_STAGES:]
        if not recent:
            return 1.0
        startup = sum(each.startup_seconds for each in recent)
        paces = [startup / sum(self.reserves[each.stage].startup for each in recent)]
        whole = [each for each in recent if type(self.reserves[each.stage]) is StageReserve]
        if whole:
            paces.append(sum(each.seconds for each in whole) / sum(self._usual(each.stage) for each in whole))
        low, high = PACE_LIMITS
        if all(each.stage == START for each in recent):
            low = 1.0  # a start from a warm cache shows that nothing is in the way, not that the machine is fast
        return min(high, max(low, min(paces)))


def share_out(seconds: float, needs: Mapping[str, Need]) -> dict[str, float]:
    """Seconds for each stage: what it wants, and of the rest or the lack its part.

    The sum is `seconds` whenever they lie between the sum of the minima and that of the maxima.
    """
    spare = seconds - sum(each.wanted for each in needs.values())
    if spare < 0:
        room = sum(each.wanted - each.minimum for each in needs.values())
        share = min(1.0, -spare / room) if room else 0.0
        return {name: each.wanted - share * (each.wanted - each.minimum) for name, each in needs.items()}
    endless = [name for name, each in needs.items() if math.isinf(each.maximum)]
    if endless:
        return {name: each.wanted + (spare / len(endless) if name in endless else 0.0) for name, each in needs.items()}
    room = sum(each.maximum - each.wanted for each in needs.values())
    share = min(1.0, spare / room) if room else 0.0
    return {name: each.wanted + share * (each.maximum - each.wanted) for name, each in needs.items()}


def deadline_seconds(config: DeadlineConfig) -> float:
    """What the cycle aims at: the deadline less a small margin."""
    return (1 - MARGIN_SHARE) * config.hours * SECONDS_PER_HOUR


def divide(needs: Needs, elapsed_seconds: float, stages: Iterable[str]) -> dict[str, float]:
    """Seconds for each of the stages that are left when `elapsed_seconds` of the deadline are gone."""
    return share_out(deadline_seconds(needs.config) - elapsed_seconds, {name: needs.of(name) for name in stages})


def shortest_hours(needs: Needs, elapsed_seconds: float, stages: Iterable[str]) -> float:
    """The shortest deadline that leaves every one of the stages its minimum, rounded up to a thousandth of an hour."""
    least = elapsed_seconds + sum(needs.of(each).minimum for each in stages)
    return math.ceil(1000 * least / SECONDS_PER_HOUR / (1 - MARGIN_SHARE)) / 1000


def stage_seconds(needs: Needs, elapsed_seconds: float) -> dict[str, float]:
    """Seconds for every stage when `elapsed_seconds` of the deadline are gone and pretrain is next.

    Raises ConfigError, with the shortest possible deadline, when pretrain would get too little.
    """
    hours, (before, following) = needs.config.hours, needs.config.reserves.around_pretrain()
    shortest = shortest_hours(needs, elapsed_seconds, following)
    if hours < shortest:
        pretrain, *later = following
        raise ConfigError(
            f"plan.hours is {hours:g}; {elapsed_seconds:.0f} s go to what comes before {pretrain}, later stages need "
            f"{sum(needs.of(each).minimum for each in later):.0f} s and {pretrain} at least "
            f"{needs.of(pretrain).minimum:.0f} s: the shortest possible is {shortest:.3f}"
        )
    return {name: needs.of(name).wanted for name in before} | divide(needs, elapsed_seconds, following)


def elapsed_seconds(needs: Needs, settings: Settings, now: float) -> float:
    """Seconds of the deadline that are gone: since the cycle began, else what earlier stages and this one reserve."""
    if settings.cycle_started_at is not None:
        return now - settings.cycle_started_at
    before, _ = needs.config.reserves.around_pretrain()
    return sum(needs.of(name).wanted for name in before)
