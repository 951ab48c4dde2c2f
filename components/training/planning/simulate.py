"""A cycle a thousand times, with what goes wrong drawn at random: how often is the deadline met?

The decisions are those of the real thing, by its own functions: `divide` gives the stages their seconds, anew whenever
one by the clock starts, and `Pace` starts and ends the decay from the speed so far. Drawn are the time of every stage,
the speed of the run, slow moments of single GPUs, and failures that cost the work since the last checkpoint and a
restart. A failed run ends when it would have, with fewer tokens, as pretrain does; what was lost later than that is
taken from the stages after it.
Not covered: a machine that is slower in every stage (deadline.division measures that; here draws are independent),
failures of storage, queues for a new machine. Without any chance every cycle ends when `deadline_seconds` says.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.core.errors import ConfigError
from components.deadline.division import SECONDS_PER_HOUR, Needs, divide, stage_seconds
from components.training.config import PlanConfig, PretrainConfig
from components.training.engine.pace import Pace
from components.training.engine.schedule import Schedule

# Llama 3 (arXiv:2407.21783, section 3.3.4): 419 unexpected interruptions in 54 days of 16,384 GPUs.
LLAMA3_FAILURES_PER_GPU_HOUR = 419 / (54 * 24 * 16_384)
WINDOWS = 200  # of the training time: what is drawn anew within a run


@dataclass(frozen=True, slots=True, kw_only=True)
class Chances:
    """What may go wrong. Spreads are standard deviations of logarithms; all but the failures are assumptions."""

    failures_per_gpu_hour: float = LLAMA3_FAILURES_PER_GPU_HOUR
    restart_seconds: float = 300.0
    restart_spread: float = 0.5
    stage_spread: float = 0.1
    speed_spread: float = 0.03
    slow_share: float = 0.002
    slow_factor: float = 1.25

    @classmethod
    def none(cls) -> "Chances":
        """Nothing goes wrong and everything takes what it was expected to."""
        return cls(failures_per_gpu_hour=0.0, stage_spread=0.0, speed_spread=0.0, slow_share=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One simulated cycle. `cause`: what cost it the most, when it missed the deadline."""

    seconds: float
    tokens: float
    failures: int
    lost_seconds: float
    cause: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is simulated: a plan, a machine, and how fast it trains there."""

    config: PlanConfig
    pretrain: PretrainConfig
    num_gpus: int
    tokens_per_second: float
    compile_seconds: float
    chances: Chances

    @property
    def step_seconds(self) -> float:
        """Of one update at the speed that was planned with."""
        return self.config.batch_samples * self.config.sequence_length / self.tokens_per_second


def simulate(run: Run, cycles: int, seed: int = 0) -> list[Ended]:
    """So many cycles, each with a generator of its own: the same seed gives the same cycles."""
    return [_cycle(run, np.random.default_rng([seed, number])) for number in range(cycles)]


def summary(run: Run, ended: list[Ended]) -> dict[str, object]:
    """Shares that met the deadline, quantiles of the end and of the tokens, and why the others did not."""
    deadline = run.config.hours * SECONDS_PER_HOUR
    seconds, tokens = np.array([each.seconds for each in ended]), np.array([each.tokens for each in ended])

    def quantiles(values: NDArray[np.float64], unit: float) -> dict[str, float]:
        return {f"p{each}": float(np.percentile(values, each)) / unit for each in (5, 50, 95)}

    return {
        "cycles": len(ended),
        "met": float(np.mean(seconds <= deadline)),
        "met_within_1_percent": float(np.mean(seconds <= 1.01 * deadline)),
        "met_within_5_percent": float(np.mean(seconds <= 1.05 * deadline)),
        "finish_hours": quantiles(seconds, SECONDS_PER_HOUR),
        "tokens": quantiles(tokens, 1.0),
        "with_failures": float(np.mean([each.failures > 0 for each in ended])),
        "lost_hours_mean": float(np.mean([each.lost_seconds for each in ended])) / SECONDS_PER_HOUR,
        "missed": dict(Counter(each.cause for each in ended if each.cause)),
    }


def _cycle(run: Run, generator: np.random.Generator) -> Ended:
    chances, needs = run.chances, Needs(run.config)
    before, (pretrain, *later) = run.config.reserves.around_pretrain()
    # What is late before pretraining comes out of it: only these can make a cycle late.
    clock, excess = 0.0, {"lost to failures": 0.0, "stages after pretraining": 0.0}

    def seconds_of(stage: str) -> float:
        expected = needs.of(stage).wanted
        seconds = expected * float(np.exp(chances.stage_spread * generator.normal()))
        rate = chances.failures_per_gpu_hour * run.num_gpus / SECONDS_PER_HOUR
        again = 0.0
        if rate and (at := float(generator.exponential(1 / rate))) < seconds:  # a retry begins anew
            again = at + _restart(chances, generator)
        if stage in later:
            excess["stages after pretraining"] += seconds - expected
            excess["lost to failures"] += again
        return seconds + again

    for stage in before:
        clock += seconds_of(stage)
    try:
        budget = stage_seconds(needs, clock)[pretrain]
    except ConfigError:
        return Ended(seconds=np.inf, tokens=0.0, failures=0, lost_seconds=0.0, cause="too late for the plan")
    spent, tokens, failures, lost = _pretrain(run, needs, budget, generator)
    clock += spent
    excess["lost to failures"] += lost
    for number, stage in enumerate(later):
        by_clock = run.config.reserves.ends_by_clock(stage)
        clock += divide(needs, clock, later[number:])[stage] if by_clock else seconds_of(stage)
    missed = clock > run.config.hours * SECONDS_PER_HOUR
    if failures > run.pretrain.faults.max_failures:
        return Ended(seconds=np.inf, tokens=tokens, failures=failures, lost_seconds=lost, cause="too many failures")
    cause = max(excess, key=lambda each: excess[each]) if missed else None
    return Ended(seconds=clock, tokens=tokens, failures=failures, lost_seconds=lost, cause=cause)


def _restart(chances: Chances, generator: np.random.Generator) -> float:
    return chances.restart_seconds * float(np.exp(chances.restart_spread * generator.normal()))


def _pretrain(run: Run, needs: Needs, budget: float, generator: np.random.Generator) -> tuple[float, float, int, float]:
    """(seconds, tokens, failures, seconds lost to them) of the stage with a budget of so many seconds."""
    chances = run.chances
    startup = (needs.startup + run.compile_seconds) * float(np.exp(chances.stage_spread * generator.normal()))
    finish = needs.finish * float(np.exp(chances.stage_spread * generator.normal()))
    training = max(1.0, budget - startup - needs.finish)
    pace = Pace(training_seconds=training, decay_share=run.pretrain.decay_share)
    schedule = Schedule(warmup_steps=run.pretrain.warmup_steps, final_share=run.pretrain.final_share)
    step_seconds = run.step_seconds * float(np.exp(chances.speed_spread * generator.normal()))
    steps_per_window = max(1, int(training / WINDOWS / step_seconds))
    slow = 1 - (1 - chances.slow_share) ** run.num_gpus  # all wait for the slowest
    rate = chances.failures_per_gpu_hour * run.num_gpus / SECONDS_PER_HOUR
    step, seconds, failures, lost = 0, 0.0, 0, 0.0
    fails_at = float(generator.exponential(1 / rate)) if rate else np.inf
    worked = 0.0
    while schedule.total_steps is None or step < schedule.total_steps:
        steps = steps_per_window if schedule.total_steps is None else min(steps_per_window, schedule.total_steps - step)
        spent = steps * step_seconds * (chances.slow_factor if generator.random() < slow else 1.0)
        if worked + spent > fails_at:
            since = float(generator.uniform(0, run.pretrain.checkpoint_seconds))
            failures += 1
            lost += min(since, seconds) + _restart(chances, generator)
            worked = fails_at
            fails_at += float(generator.exponential(1 / rate))
            if failures > run.pretrain.faults.max_failures:
                break
            pace.restart()
            pace.left_seconds = max(0.0, training - seconds - lost)  # the stage's end does not move
            pace.resumed(seconds)
            continue
        step, seconds, worked = step + steps, seconds + spent, worked + spent
        pace.decide(schedule, step, seconds)
    tokens = step * run.config.batch_samples * run.config.sequence_length
    return startup + seconds + lost + finish, float(tokens), failures, lost
