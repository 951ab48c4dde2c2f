"""A model with its optimizer, ready to take steps: precision, compilation, gradient accumulation, several workers.

Plain torch. Covers: float32 or bfloat16 compute on float32 masters, compilation with a fall-back to eager,
data-parallel and sharded workers, activation checkpointing by block, smaller micro-batches where memory is short.
Not covered: the last with several workers, which wait for each other inside a backward pass.
"""

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_utils import PreTrainedModel

from components.training.engine.batches.batch import Batch
from components.training.engine.devices.accelerators import Accelerator, before_replay, take_up
from components.training.engine.devices.memory import is_out_of_memory
from components.training.engine.devices.parallel import Parallel, blocks_of, is_sharded, reducing, shard, whole
from components.training.engine.devices.parallel import World as World
from components.training.engine.model.attention import leave_mask_out
from components.training.engine.model.forward import Tensors, features, output_weight
from components.training.engine.model.loss import Loss, token_nats
from components.training.engine.optimizer import Optimizer, Rates
from components.training.engine.reason import reason_of

Precision = Literal["float32", "bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class NonFiniteLossError(Exception):
    """The loss or the gradient of a step is not a number: training cannot go on, the last checkpoint is still good."""


class OutOfMemoryError(Exception):
    """Not even one sample at a time fits: a restart would end the same way."""


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
    z_loss: float = 0.0
    flops_per_token: float | None = None  # what the model needs, forward and backward; None: no utilisation is reported
    isolate_documents: bool = True
    parallel: Parallel = "data"
    activation_checkpointing: bool = False
    accelerators: tuple[Accelerator, ...] = ()
    scored_only: bool = False  # logits where something is asked for; not compiled


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

    def __init__(
        self,
        model: PreTrainedModel,
        recipe: Recipe,
        world: World,
        note: Callable[[str], None],
        loss: nn.Module | None = None,
    ) -> None:
        """`loss`: what of the model is lowered, called with a batch's arrays and columns by name, giving what `Loss`
        gives; that of a language model when None."""
        self.recipe = recipe
        self.world = world
        self.note = note
        if world.device.startswith("cuda"):
            torch.cuda.set_device(torch.device(world.device).index or 0)  # it takes no "cuda" without a number
            torch.set_float32_matmul_precision("high")  # TF32, for what is float32 on purpose
        self.sharded = is_sharded(world, recipe.parallel)
        self.model = model.to(world.device)
        if recipe.activation_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if not recipe.isolate_documents:
            leave_mask_out(model)
        take_up(
            model,
            recipe.accelerators,
            device=world.device,
            precision=recipe.precision,
            compiled=recipe.compiled,
            workers=world.size,
        )
        self.replayed = "graphs" in recipe.accelerators
        self.eager: nn.Module = loss or Loss(model, recipe.z_loss, scored_only=recipe.scored_only)
        self.eager.to(world.device)
        if self.sharded:
            shard(self.eager, world, DTYPES[recipe.precision])
        self.optimizer = Optimizer(model, recipe.rates, world, recipe.parallel, DTYPES[recipe.precision])
        if not self.sharded:
            model.to(DTYPES[recipe.precision])
        self.optimizer.write_back()
        self.loss: Any = self.eager
        self.is_warm = False
        self.micro_batch_samples = recipe.micro_batch_samples
        self.step_seconds = 0.0  # of the last accumulate and update

    def warm_up(self, batch: Batch) -> None:
        """Compile if asked to, on the shapes of a real batch, and change nothing; once.

        Falls back to eager with a note; sharded blocks are compiled one by one, without a way back.
        """
        if self.is_warm:
            return
        while not self._fits(lambda: self._warm_up(batch)):
            self._halve("before the first step", len(batch))
        self.is_warm = True

    def _warm_up(self, batch: Batch) -> None:
        part = self._tensors(batch.rows(0, self.micro_batch_samples))
        if self.recipe.compiled and self.sharded:
            for block in blocks_of(self.model):
                block.forward = torch.compile(block.forward, dynamic=False)
        elif self.recipe.compiled:
            compiled = torch.compile(self.eager, dynamic=False, mode="reduce-overhead" if self.replayed else None)
            try:
                self._before_pass()
                torch.autograd.backward(_mean(compiled(**part)[:2], 1))
                self.loss = compiled
            except Exception as error:  # whatever the compiler raises, training can do without it
                if is_out_of_memory(error):
                    raise
                self.note(f"no compilation, training in eager mode: {reason_of(error)}")
        if self.world.size > 1 and not self.sharded:
            self.loss = DistributedDataParallel(self.loss)
        # Also through DistributedDataParallel: its first backward pass finds the order in which it exchanges gradients
        # from then on, and a resumed run must add them up as the unbroken one did.
        self._before_pass()
        torch.autograd.backward(_mean(self.loss(**part)[:2], 1))
        self.optimizer.write_back()

    def accumulate(self, step: int, batch: Batch) -> Gradients:
        """Forward and backward over this worker's samples of a step.

        When memory does not suffice, the step is taken again in micro-batches of half the samples, which are kept.
        Raises NonFiniteLossError, and OutOfMemoryError when one sample is too much.
        """
        started = time.perf_counter()
        gradients: list[Gradients] = []
        while not self._fits(lambda: gradients.append(self._accumulate(step, batch))):
            self._halve(f"step {step}", len(batch))
        self.step_seconds = time.perf_counter() - started
        return gradients[0]

    def _accumulate(self, step: int, batch: Batch) -> Gradients:
        rows = self.micro_batch_samples
        parts = [batch.rows(start, start + rows) for start in range(0, len(batch), rows)]
        num_labels = self._sum(float(batch.num_labels))
        total, nats = torch.zeros((), device=self.world.device), []
        for position, part in enumerate(parts):
            last = position == len(parts) - 1
            self._before_pass()
            with reducing(self.loss, last):
                lowered, auxiliary, sample_nats = self.loss(**self._tensors(part))
                # Workers' gradients are averaged: each scales by their number, so that the sum over all is the mean.
                scale, weight = num_labels / self.world.size, len(part) / len(batch)
                torch.autograd.backward(_mean((lowered, auxiliary), scale, weight))
            total += _mean((sample_nats.sum(), auxiliary.detach()), scale, weight)
            nats.append(sample_nats.clone() if self.replayed else sample_nats)
        loss = self._sum(float(total)) / self.world.size
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"step {step}: the loss is {loss}; lower the learning rates or look at the data")
        return Gradients(
            loss=loss,
            sample_nats=torch.cat(nats).float().cpu().numpy(),
            sample_labels=(batch.labels >= 0).sum(axis=1),
        )

    def gradient_norm(self, step: int) -> float:
        """Norm of the gradients before clipping, over all workers. Raises NonFiniteLossError when it is no number."""
        started = time.perf_counter()
        try:
            norm = self.optimizer.collect()
        except FloatingPointError as error:
            raise NonFiniteLossError(f"step {step}: {error}; lower the learning rates or look at the data") from None
        self.step_seconds += time.perf_counter() - started
        return norm

    def update(self, step: int, share: float) -> float:
        """Apply the gradients at a share of the peak rates and clear them. Returns their norm before clipping.

        Raises NonFiniteLossError, and changes nothing, when it is not a number.
        """
        norm = self.gradient_norm(step)
        started = time.perf_counter()
        self.optimizer.step(step, share)
        self.step_seconds += time.perf_counter() - started
        return norm

    def discard(self) -> None:
        """Clear the gradients of a step that is not taken."""
        self.optimizer.write_back()

    @torch.no_grad()
    def token_nats(self, batch: Batch) -> NDArray[np.float32]:
        """-ln p of each label of this worker's samples with the weights as they are, shape (B, T). All take part."""
        rows, nats, batch = self.micro_batch_samples, [], replace(batch, columns={})
        with whole(self.eager):
            for start in range(0, len(batch), rows):
                part = Tensors(**self._tensors(batch.rows(start, start + rows)))
                hidden = features(self.model, part).hidden
                nats.append(token_nats(hidden, output_weight(self.model), part.labels).cpu())
        return torch.cat(nats).numpy()

    def evaluate(self, figure: Callable[[PreTrainedModel], float]) -> float | None:
        """A figure of the model on worker 0, None on others. Of a sharded one all compute it: blocks are gathered."""
        if self.world.rank != 0 and not self.sharded:
            return None
        with whole(self.eager):
            number = figure(self.model)
        return number if self.world.rank == 0 else None

    def _before_pass(self) -> None:
        if self.replayed:
            before_replay(self.model)

    def _fits(self, work: Callable[[], None]) -> bool:
        """Whether memory sufficed for some passes; if not, what they left is gone."""
        try:
            work()
            return True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        for each in self.model.parameters():  # out here: a caught error's traceback holds the activations
            each.grad = None
        gc.collect()
        if self.world.device.startswith("cuda"):
            torch.cuda.empty_cache()
        return False

    def _halve(self, when: str, samples: int) -> None:
        """Go on with half the samples in a micro-batch. Raises OutOfMemoryError."""
        rows = min(self.micro_batch_samples, samples)
        if rows == 1 or self.world.size > 1:
            what = f"{rows} sample{'s' if rows > 1 else ''} of one micro-batch"
            raise OutOfMemoryError(
                f"{when}: not enough memory for {what} on worker {self.world.rank}; lower plan.micro_batch_samples, "
                "plan.sequence_length or the size of the model"
            )
        self.micro_batch_samples = -(-rows // 2)
        self.note(f"{when}: not enough memory for micro-batches of {rows} samples, going on with {-(-rows // 2)}")

    def _tensors(self, batch: Batch) -> dict[str, Tensor]:
        arrays = {
            "inputs": batch.inputs,
            "labels": batch.labels,
            "positions": batch.positions if self.recipe.isolate_documents else None,
            "encoder_inputs": batch.encoder_inputs,
            "encoder_positions": batch.encoder_positions,
            **batch.columns,
        }
        present = {name: each for name, each in arrays.items() if each is not None}
        tensors = {name: torch.from_numpy(np.array(each)) for name, each in present.items()}
        if self.world.device == "cpu":
            return tensors
        return {name: each.pin_memory().to(self.world.device, non_blocking=True) for name, each in tensors.items()}

    def _sum(self, value: float) -> float:
        """Over all workers."""
        if self.world.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.world.device)
        torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.SUM)
        return float(shared)


def _mean(losses: tuple[Tensor, Tensor], num_labels: float, share: float = 1.0) -> Tensor:
    lowered, auxiliary = losses
    return lowered / num_labels + auxiliary * share
