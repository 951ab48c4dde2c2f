"""What the driver hands to every worker of a run, and how a worker ends a run on purpose. Light: no torch."""

from abc import ABC, abstractmethod
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from components.training.config import Plan, PretrainConfig
from components.training.parameters.faults import FaultsConfig


class Workload(BaseModel, ABC):
    """What workers on Ray Train share, whatever they train. Paths are absolute and seen by all workers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Path = Field(description="checkpoints, export and budget of this run")
    training_ends_at: float | None = Field(description="seconds since the epoch; None in fixed mode")
    threads: int = Field(default=1, ge=1, description="for each worker")

    @property
    @abstractmethod
    def num_workers(self) -> int:
        """How many share every batch."""

    @property
    @abstractmethod
    def device(self) -> str:
        """cpu or cuda, of every worker."""

    @property
    @abstractmethod
    def micro_batch_samples(self) -> int:
        """Of each worker, at most."""

    @property
    @abstractmethod
    def faults(self) -> FaultsConfig:
        """What happens when workers fail."""


class Work(Workload):
    """Everything that a worker of pretraining needs."""

    config: PretrainConfig
    plan: Plan
    tokens: Path = Field(description="the token files")
    tokenizer: Path = Field(description="its special tokens are read from here")
    began_at: float | None = Field(default=None, description="when the stage began, seconds since the epoch")

    @property
    def num_workers(self) -> int:
        """See Workload."""
        return self.plan.num_workers

    @property
    def device(self) -> str:
        """See Workload."""
        return self.plan.device

    @property
    def micro_batch_samples(self) -> int:
        """See Workload."""
        return min(self.plan.micro_batch_samples, self.plan.batch_samples // self.plan.num_workers)

    @property
    def faults(self) -> FaultsConfig:
        """See Workload."""
        return self.config.faults


class EndOfRunError(Exception):
    """Training cannot go on, and a restart would end the same way: one line for the person, no retry."""
