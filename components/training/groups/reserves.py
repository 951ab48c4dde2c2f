"""Seconds of the stages around pretraining."""

from pydantic import Field

from components.core.config import StepConfig


class StageReserves(StepConfig):
    """Seconds set aside for each stage but pretrain, start-up included. Those before `plan` count when no cycle says
    when it began."""

    ingest: float = Field(default=15, gt=0)
    check_raw: float = Field(default=20, gt=0)
    clean: float = Field(default=40, gt=0)
    check_clean: float = Field(default=15, gt=0)
    vocabulary: float = Field(default=10, gt=0)
    tokenize: float = Field(default=10, gt=0)
    plan: float = Field(default=35, gt=0)
    sft: float = Field(default=45, gt=0)
    preferences: float = Field(default=40, gt=0)
    align: float = Field(default=45, gt=0)
    evaluate: float = Field(default=60, gt=0)
    release: float = Field(default=40, gt=0, description="registration, gate, deployment and the first answer")


BEFORE_PLAN = ("ingest", "check_raw", "clean", "check_clean", "vocabulary", "tokenize")
AFTER_PRETRAIN = ("sft", "preferences", "align", "evaluate", "release")
