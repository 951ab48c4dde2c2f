"""Parameters of the deadline: how long a cycle may take, what each stage needs of it; and what a plan made of them.

The seconds are those of two quiet cores. How much slower another machine is, or this one under load, shows in what the
first stages of a cycle really take (components.deadline.division).
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from components.core.config import StepConfig

Mode = Literal["deadline", "fixed"]
START = "start"  # the command before its first stage; no stage of the graph
# The one without a reserve, which takes all the time that the others leave, and the one before it.
PRETRAIN, PLAN = "pretrain", "plan"


class StageReserve(StepConfig):
    """What one stage needs. `startup` is interpreter, imports and DVC's bookkeeping; `work` grows with the data."""

    startup: float = Field(default=2.5, gt=0, description="seconds before the stage does anything")
    work: float = Field(default=10, gt=0, description="seconds of its task")

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.startup + self.work


class ProbeReserve(StageReserve):
    """A stage that measures for a set time: however fast the machine is, its work takes as long."""


class TimedReserve(StageReserve):
    """A stage that ends by the clock: it gets a share of the deadline, at least `startup` and `work`."""

    startup: float = Field(default=14, gt=0, description="seconds before the stage does anything")
    work: float = Field(default=20, gt=0, description="seconds of its task at least: measuring, a few steps, saving")

    share: float = Field(default=0.06, ge=0, lt=1, description="of the deadline, start-up included")
    maximum: float = Field(default=120, gt=0, description="seconds, start-up included, from which on more do not help")


class StageReserves(StepConfig):
    """What is set aside for every stage but pretrain, in the order in which they run."""

    start: StageReserve = Field(
        default=StageReserve(startup=14, work=1), description="the command before its first stage: imports, servers"
    )
    ingest: StageReserve = Field(default=StageReserve(work=7))
    check_raw: StageReserve = Field(default=StageReserve(work=9))
    clean: StageReserve = Field(default=StageReserve(work=8))
    check_clean: StageReserve = Field(default=StageReserve(work=5))
    vocabulary: StageReserve = Field(default=StageReserve(work=7))
    tokenize: StageReserve = Field(default=StageReserve(work=7))
    plan: ProbeReserve = Field(default=ProbeReserve(work=25))
    instructions: StageReserve = Field(default=StageReserve(startup=4, work=23))
    sft: TimedReserve = Field(default=TimedReserve(startup=13, work=40, share=0.15, maximum=300))
    preferences: TimedReserve = Field(default=TimedReserve(startup=3, work=30, share=0.07, maximum=90))
    align: TimedReserve = Field(default=TimedReserve(startup=13, work=18, share=0.05, maximum=60))
    evaluate: StageReserve = Field(
        default=StageReserve(startup=6, work=62), description="three models of 4 x 128; of 6 x 192 half as much again"
    )
    release: StageReserve = Field(
        default=StageReserve(startup=1, work=18),
        description="registration, gate, deployment, the first answer, and the report",
    )

    def around_pretrain(self) -> tuple[list[str], list[str]]:
        """The stages before pretrain, and pretrain with those that follow it, in their order."""
        names = [name for name in type(self).model_fields if name != START]
        cut = names.index(PLAN) + 1
        return names[:cut], [PRETRAIN, *names[cut:]]

    def ends_by_clock(self, stage: str) -> bool:
        """Whether what a stage gets is decided anew when it starts."""
        return stage == PRETRAIN or isinstance(getattr(self, stage, None), TimedReserve)


class DeadlineConfig(StepConfig):
    """The deadline, and what pretraining needs of it beside its steps."""

    mode: Mode = Field(
        "deadline", description="deadline: time decides, every decision is recorded; fixed: `fixed` decides"
    )
    hours: float = Field(0.18, gt=0, le=24 * 30, description="deadline of the whole cycle, from its start")
    reserves: StageReserves = Field(
        default_factory=StageReserves, description="seconds of every other stage on two quiet cores"
    )
    startup_seconds: float = Field(22, ge=0, description="pretrain before its first step: Ray Train, imports")
    compile_seconds: float = Field(40, ge=0, description="compilation before the first step, when it is used")
    finish_seconds: float = Field(18, ge=0, description="pretrain after its last step: validation, export")
    minimum_training_seconds: float = Field(60, gt=0, description="a deadline that leaves less is refused")


class TimePlan(BaseModel):
    """What plan.json says of time. `stage_seconds` holds every stage of the graph and `release`."""

    model_config = ConfigDict(frozen=True)

    mode: Mode
    deadline_hours: float = Field(description="of the whole cycle; in fixed mode it only shapes stage_seconds")
    stage_seconds: dict[str, float] = Field(description="budget of a stage in deadline mode, start-up included")
