"""Seconds of the stages around pretraining, on the machine that they were measured on.

Two cores, quiet. Another machine, or this one under load, is told from these figures by what the first stages of a
cycle really take (components.training.budget).
"""

from pydantic import Field

from components.core.config import StepConfig


class StageReserve(StepConfig):
    """What one stage needs. `startup` is interpreter, imports and DVC's bookkeeping; `work` grows with the data."""

    startup: float = Field(default=2.5, gt=0, description="seconds before the stage does anything")
    work: float = Field(default=10, gt=0, description="seconds of its task")

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.startup + self.work


class TimedReserve(StageReserve):
    """A stage that ends by the clock: it gets a share of the deadline, at least `startup` and `work`."""

    startup: float = Field(default=14, gt=0, description="seconds before the stage does anything")
    work: float = Field(default=20, gt=0, description="seconds of its task at least: measuring, a few steps, saving")

    share: float = Field(default=0.06, ge=0, lt=1, description="of the deadline, start-up included")
    maximum: float = Field(default=120, gt=0, description="seconds, start-up included, from which on more do not help")


class StageReserves(StepConfig):
    """What is set aside for every stage but pretrain. Those before `plan` count when no cycle says when it began."""

    start: StageReserve = Field(
        default=StageReserve(startup=14, work=1), description="the command before its first stage: imports, servers"
    )
    ingest: StageReserve = Field(default=StageReserve(work=7))
    check_raw: StageReserve = Field(default=StageReserve(work=9))
    clean: StageReserve = Field(default=StageReserve(work=8))
    check_clean: StageReserve = Field(default=StageReserve(work=5))
    vocabulary: StageReserve = Field(default=StageReserve(work=7))
    tokenize: StageReserve = Field(default=StageReserve(work=7))
    plan: StageReserve = Field(default=StageReserve(work=25))
    sft: TimedReserve = Field(default=TimedReserve(startup=13, work=24, share=0.11, maximum=120))
    preferences: TimedReserve = Field(default=TimedReserve(startup=13, work=22, share=0.07, maximum=75))
    align: TimedReserve = Field(default=TimedReserve(startup=13, work=18, share=0.05, maximum=60))
    evaluate: StageReserve = Field(
        default=StageReserve(startup=6, work=44), description="three models of 4 x 128; of 6 x 192 half as much again"
    )
    release: StageReserve = Field(
        default=StageReserve(startup=1, work=14),
        description="registration, gate, deployment, the first answer, and the report",
    )


START = "start"
BEFORE_PLAN = ("ingest", "check_raw", "clean", "check_clean", "vocabulary", "tokenize")
AFTER_PRETRAIN = ("sft", "preferences", "align", "evaluate", "release")
# The stages that end by the clock; what they get is decided anew when each of them starts.
TIMED = ("pretrain", "sft", "preferences", "align")
