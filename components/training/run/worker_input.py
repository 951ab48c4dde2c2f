"""What the driver hands to every worker of a run, and how a worker ends a run on purpose. Light: no torch."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from components.training.config import Plan, PretrainConfig


class Work(BaseModel):
    """Everything that a worker needs. Paths are absolute and seen by all workers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: PretrainConfig
    plan: Plan
    tokens: Path = Field(description="the token files")
    tokenizer: Path = Field(description="its special tokens are read from here")
    run: Path = Field(description="checkpoints, export and budget of this run")
    training_ends_at: float | None = Field(description="seconds since the epoch; None in fixed mode")
    threads: int = Field(default=1, ge=1, description="for each worker")
    began_at: float | None = Field(default=None, description="when the stage began, seconds since the epoch")


class EndOfRunError(Exception):
    """Training cannot go on, and a restart would end the same way: one line for the person, no retry."""
