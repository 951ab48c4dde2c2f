"""A model with its optimizer, ready to take steps: precision, compilation, gradient accumulation, several workers.

Plain torch. Covers: float32 or bfloat16 compute on float32 masters, compilation with a fall-back to eager,
data-parallel workers.  Not covered: sharded parameters.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_utils import PreTrainedModel

from components.training.batch import Batch
from components.training.loss import Loss
from components.training.optimizer import Optimizer, Rates
from components.training.parallel import World as World

Precision = Literal["float32", "bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class NonFiniteLossError(Exception):
    """The loss of a step is not a number: training cannot go on, the last checkpoint is still good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is trained; the data and the schedule are given apart."""

    precision: Precision
    compiled: bool
    micro_batch_samples: int
    rates: Rates
    report_every_steps: int
    validate_every_steps: int
    checkpoint_seconds: float
    checkpoints_kept: int = 2
    isolate_documents: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradients:
    """What the backward passes of one step found, before the update. Over all workers but for `nats`.

    loss            mean nats per label of the global batch, and what the model itself adds
    sample_nats     nats of each of this worker's samples, shape (B,)
    sample_labels   labels of each of this worker's samples, shape (B,)
    """

    loss: float
    sample_nats: NDArray[np.float32]
    sample_labels: NDArray[np.int64]


class Trainer:
    """A model with its optimizer, ready to take steps."""

    def __init__(self, model: PreTrainedModel, recipe: Recipe, world: World, note: Callable[[str], None]) -> None:
        self.recipe = recipe
        self.world = world
        self.note = note
        self.optimizer = Optimizer(model.to(world.device), recipe.rates)
        self.model = model.to(DTYPES[recipe.precision])
        self.optimizer.write_back()
        self.eager = Loss(model)
        self.loss: Any = self.eager

    def warm_up(self, batch: Batch) -> None:
        """Compile if asked to, on the shapes of a real batch, and change nothing. Falls back to eager with a note."""
        part = self._tensors(batch.rows(0, self.recipe.micro_batch_samples))
        if self.recipe.compiled:
            compiled = torch.compile(self.eager, dynamic=False)
            try:
                torch.autograd.backward(_mean(compiled(**part), 1))
                self.loss = compiled
            except Exception as error:  # whatever the compiler raises, training can do without it
                reason = " ".join(str(error).split())[:200]
                self.note(f"no compilation, training in eager mode: {type(error).__name__}: {reason}")
        if self.loss is self.eager:
            torch.autograd.backward(_mean(self.eager(**part), 1))
        if self.world.size > 1:
            self.loss = DistributedDataParallel(self.loss)
        self.optimizer.write_back()

    def accumulate(self, step: int, batch: Batch) -> Gradients:
        """Forward and backward over this worker's samples of a step. Raises NonFiniteLossError."""
        rows = self.recipe.micro_batch_samples
        parts = [batch.rows(start, start + rows) for start in range(0, len(batch), rows)]
        num_labels = self._sum(float(batch.num_labels))
        total, nats = torch.zeros((), device=self.world.device), []
        for position, part in enumerate(parts):
            last = position == len(parts) - 1
            with nullcontext() if last or self.world.size == 1 else self.loss.no_sync():
                found = self.loss(**self._tensors(part))
                # Workers' gradients are averaged: each scales by their number, so that the sum over all is the mean.
                share = _mean(found, num_labels / self.world.size, len(part) / len(batch))
                torch.autograd.backward(share)
            total += share.detach()
            nats.append(found[0].detach())
        loss = self._sum(float(total)) / self.world.size
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"step {step}: the loss is {loss}; lower the learning rates or look at the data")
        return Gradients(
            loss=loss,
            sample_nats=torch.cat(nats).float().cpu().numpy(),
            sample_labels=(batch.labels >= 0).sum(axis=1),
        )

    def update(self, step: int, share: float) -> float:
        """Apply the gradients at a share of the peak rates and clear them. Returns their norm before clipping."""
        return self.optimizer.step(step, share)

    def _tensors(self, batch: Batch) -> dict[str, Tensor]:
        arrays = {
            "inputs": batch.inputs,
            "labels": batch.labels,
            "positions": batch.positions if self.recipe.isolate_documents else None,
            "encoder_inputs": batch.encoder_inputs,
            "encoder_positions": batch.encoder_positions,
        }
        return {
            name: torch.from_numpy(np.ascontiguousarray(each)).to(self.world.device)
            for name, each in arrays.items()
            if each is not None
        }

    def _sum(self, value: float) -> float:
        """Over all workers."""
        if self.world.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.world.device)
        torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.SUM)
        return float(shared)


def _mean(found: tuple[Tensor, Tensor], num_labels: float, share: float = 1.0) -> Tensor:
    nats, auxiliary = found
    return nats.sum() / num_labels + auxiliary * share
