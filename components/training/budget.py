"""Divide a deadline among the stages. Light: no torch."""

import math

from components.core.config import Settings
from components.core.errors import ConfigError
from components.training.config import PlanConfig
from components.training.groups.reserves import AFTER_PRETRAIN, BEFORE_PLAN

SECONDS_PER_HOUR = 3600


def divide(config: PlanConfig, elapsed_seconds: float) -> dict[str, float]:
    """Seconds for every stage when `elapsed_seconds` of the deadline are gone and pretrain is next.

    Raises ConfigError, with the shortest possible deadline, when pretrain would get too little.
    """
    reserves = config.reserves.model_dump()
    later = sum(reserves[name] for name in AFTER_PRETRAIN)
    around = config.startup_seconds + config.finish_seconds
    left = config.hours * SECONDS_PER_HOUR - elapsed_seconds - later
    if left - around < config.minimum_training_seconds:
        shortest = (elapsed_seconds + later + around + config.minimum_training_seconds) / SECONDS_PER_HOUR
        raise ConfigError(
            f"plan.hours is {config.hours:g}; {elapsed_seconds:.0f} s are gone, later stages need {later:.0f} s and "
            f"pretrain at least {config.minimum_training_seconds + around:.0f} s: "
            f"the shortest possible is {math.ceil(shortest * 1000) / 1000:.3f}"
        )
    return {**reserves, "pretrain": left}


def elapsed_seconds(config: PlanConfig, settings: Settings, now: float) -> float:
    """Seconds of the deadline that are gone: since the cycle began, else what earlier stages and this one reserve."""
    if settings.cycle_started_at is not None:
        return now - settings.cycle_started_at
    reserves = config.reserves.model_dump()
    return float(sum(reserves[name] for name in (*BEFORE_PLAN, "plan")))
