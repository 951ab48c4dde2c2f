"""Fine-tune with several workers on Ray Train, as pretraining runs them.

Every worker opens the same base and reads the same instructions; of each batch it takes every n-th row. Gradients are
averaged so that a step is that of one worker to rounding. The last checkpoint, which worker 0 completes, is the result.
Covers: failures of workers, as pretraining treats them.  Not covered: classifiers.

Importing this module imports Ray Train, which takes 2 s.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from ray.train import report
from transformers import PreTrainedModel

from components.alignment import sft
from components.alignment.config import SftConfig
from components.alignment.objectives import tuning
from components.alignment.objectives.anchored_loss import loss_of
from components.alignment.objectives.engine_tuning import Tuned, load_weights, recipe_of, take_steps
from components.alignment.objectives.tuned_weights import ADAPTERS, open_model, with_adapters
from components.core.config import read_settings
from components.deadline.budget import Budget
from components.machine import cluster
from components.training.engine.batches.batch import Batch
from components.training.engine.devices.cores import has_machine, pinned
from components.training.engine.devices.parallel import World, agreed
from components.training.engine.model.shape import RECURRENT
from components.training.engine.trainer import Trainer
from components.training.parameters.faults import FaultsConfig
from components.training.run import micro_batch
from components.training.run.worker import Reporter
from components.training.run.worker_input import Workload
from components.training.run.workers import in_world, run_workers

LEAST_SECONDS = 1.0  # with less left no worker begins


class TuningWork(Workload):
    """Everything that a worker of fine-tuning needs."""

    config: SftConfig
    base: Path
    instructions: Path
    tokens: Path
    weights: dict[str, float] = Field(description="how often each source of instructions is drawn")
    where: str = Field(description="cpu or cuda")
    compiled: bool

    @property
    def num_workers(self) -> int:
        """See Workload."""
        return self.config.num_workers

    @property
    def device(self) -> str:
        """See Workload."""
        return self.where

    @property
    def micro_batch_samples(self) -> int:
        """See Workload."""
        return min(self.config.micro_batch_rows, self.config.batch_rows // self.config.num_workers)

    @property
    def faults(self) -> FaultsConfig:
        """See Workload."""
        return FaultsConfig()


def tune_together(model: PreTrainedModel, work: TuningWork, steps: tuning.Steps) -> Tuned:
    """Train a model as it was opened, in place, with the decisions of the workers' clock. Raises OvernightError."""
    with cluster.connect():
        figures = run_workers(work, read_settings(), sft.STAGE, tune_on_ray, parameter="sft.num_workers")
    steps.schedule.decisions[:] = [(start, end) for start, end in figures.pop("decisions")]
    tuned = Tuned(**figures)
    load_weights(model, work.run, tuned)
    return tuned


def tune_on_ray(content: str) -> dict[str, Any]:
    """What each worker runs. `content` is the JSON of a TuningWork."""
    work = TuningWork.model_validate_json(content)
    return in_world(work, lambda world: tune_share(work, world, report))


def tune_share(work: TuningWork, world: World, say: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Train with this worker's share of every batch; worker 0's figures, {} of others."""
    torch.set_num_threads(work.threads)
    config = work.config.model_copy(
        update={"micro_batch_rows": micro_batch.samples_of(work.run, work.micro_batch_samples)}
    )
    batches = sft.read_batches(config, work.base, work.instructions, work.tokens, work.weights)
    model = open_model(config, work.base)
    if config.tune in ADAPTERS:
        with_adapters(model, config)
    reporter = Reporter(say)
    recurrent = model.config.model_type in RECURRENT
    recipe = recipe_of(config, compiled=work.compiled, recurrent=recurrent)
    loss = loss_of(config, model, work.base) if batches.replayed else None
    trainer = Trainer(model, recipe, world, reporter.notes.append, loss)
    steps = tuning.plan_steps(config, batches.steps_of_epoch, _budget(work, world))

    def share(step: int) -> Batch:
        return batches(step).every(world.rank, world.size)

    with pinned(work.threads if has_machine(world.size, world.device) else 1):
        tuned = take_steps(trainer, share, steps, work.run, reporter.row)
    if world.rank != 0:
        return {}
    figures = {"steps": tuned.steps, "tokens": tuned.tokens, "seconds": tuned.seconds, "history": tuned.history}
    return figures | {"decisions": steps.schedule.decisions}


def _budget(work: TuningWork, world: World) -> Budget:
    """What is left of the stage's seconds, the same on every worker."""
    if work.training_ends_at is None:
        return Budget(seconds=None, started=time.monotonic())
    left = agreed(work.training_ends_at - time.time(), world)
    return Budget(seconds=left if left >= LEAST_SECONDS else 0.0, started=time.monotonic())
