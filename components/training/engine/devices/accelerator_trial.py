"""Accelerators beside the plain way of computing: speed in steps taken in turn, and loss. Plain torch.

Both train the same decoder from the same weights on the same batches: the planned sizes, few blocks of them, so that
two fit the memory of one and compile in the time of few; blocks are alike, so a step's share of time is nearly that of
the whole. Tokens follow from the ones before by a rule, which a few steps teach, so that losses have somewhere to fall.
Gradients are compared too, as losses alone do not tell in a few steps: with all gradients lost inside the blocks, which
embeddings can do without for a while, they differed by 0.002 to 0.012.
Not covered: error that grows with depth, the user's own tokens, several workers. Not measured on a GPU. On a CPU, 2
blocks of 64 and 4 of 256, one seed: float8 differed from bfloat16 by 0.0001 and 0.0005 in the loss, by 0.11 and 0.09 in
a matrix's gradient; float32 by 0.0006 and 0.0005, 0.013 and 0.010.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from components.training.engine.batches.batch import Batch, next_token_batch
from components.training.engine.devices.accelerators import Accelerator
from components.training.engine.model.architectures import build
from components.training.engine.model.shape import Shape
from components.training.engine.optimizer import Rates
from components.training.engine.reason import reason_of
from components.training.engine.trainer import Precision, Recipe, Trainer, World

LAYERS = 4
UNTIMED_STEPS = 3
TIMED_STEPS = 20
LAST_LOSSES = 5
RULE_TOKENS = 64
RATES = Rates(
    matrix=0.01,
    embedding=0.1,
    output=0.003,
    norm=0.003,
    momentum=0.95,
    momentum_warmup_steps=0,
    weight_decay=0.0,
    betas=(0.8, 0.95),
    epsilon=1e-10,
    clip_norm=1.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is trained for a comparison, on one device."""

    shape: Shape
    precision: Precision
    compiled: bool
    samples: int
    sequence_length: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What accelerators came to beside none.

    speed           the plain step's seconds over theirs, median over pairs of steps
    same_weights    share by which the loss of one batch differs with the trained weights of the plain one
    after_steps     share by which the mean of the last losses differs, each with weights of its own
    gradient        norm of the difference of that batch's gradients, as a share of the plain ones' norm: of the matrix
                    where it is largest
    """

    speed: float
    same_weights: float
    after_steps: float
    gradient: float

    @property
    def loss(self) -> float:
        """The larger share of the two."""
        return max(self.same_weights, self.after_steps)


def compare(setting: Setting, names: Sequence[Accelerator]) -> Comparison:
    """Steps of a plain trainer and an accelerated one in turn. Raises AcceleratorError, OutOfMemoryError, and whatever
    a kernel raises."""
    plain, other = _trainer(setting, ()), _trainer(setting, names)
    ratios, losses = list[float](), list[tuple[float, float]]()
    for trainer in (plain, other):
        trainer.warm_up(_batch(setting, 0))
    for step in range(UNTIMED_STEPS + TIMED_STEPS):
        batch = _batch(setting, step)
        if step % 2:  # who goes second finds the device warmer
            theirs, ours = _step(other, step, batch), _step(plain, step, batch)
        else:
            ours, theirs = _step(plain, step, batch), _step(other, step, batch)
        ratios.append(ours[0] / theirs[0])
        losses.append((ours[1], theirs[1]))
    if plain.micro_batch_samples != other.micro_batch_samples:
        raise MemoryError("two models side by side leave no room for micro-batches of one size")
    ends = np.mean(losses[-LAST_LOSSES:], axis=0)
    same_weights, gradient = _with_same_weights(plain, other, _batch(setting, len(losses)))
    return Comparison(
        speed=statistics.median(ratios[UNTIMED_STEPS:]),
        same_weights=same_weights,
        after_steps=abs(float(ends[1] / ends[0]) - 1),
        gradient=gradient,
    )


def pick(
    names: Sequence[Accelerator],
    compared: Callable[[tuple[Accelerator, ...]], Comparison],
    *,
    gain: float,
    loss_tolerance: float,
    gradient_tolerance: float,
) -> tuple[tuple[Accelerator, ...], dict[str, Comparison | str]]:
    """Those that pay, added one to another in this order, and what each came to with those before it: a comparison, or
    why there is none.

    gain        share by which steps must be faster than with those taken so far; tolerances are of the plain way
    """
    picks: tuple[Accelerator, ...] = ()
    speed, outcomes = 1.0, dict[str, Comparison | str]()
    for name in names:
        try:
            outcomes[name] = result = compared((*picks, name))
        except Exception as error:  # kernels' failures have no common class, and training can do without
            outcomes[name] = reason_of(error)
            continue
        keeps = result.loss <= loss_tolerance and result.gradient <= gradient_tolerance
        if keeps and result.speed >= speed * (1 + gain):
            picks, speed = (*picks, name), result.speed
    return picks, outcomes


def _trainer(setting: Setting, names: Sequence[Accelerator]) -> Trainer:
    shape = replace(setting.shape, layers=min(LAYERS, setting.shape.layers))
    recipe = Recipe(
        precision=setting.precision,
        compiled=setting.compiled,
        accelerators=tuple(names),
        micro_batch_samples=setting.samples,
        rates=RATES,
        report_every_steps=1,
        validate_every_steps=1,
        checkpoint_seconds=float("inf"),
    )
    return Trainer(build(shape, 0, 0), recipe, World(device=setting.device), lambda _: None)


def _batch(setting: Setting, step: int) -> Batch:
    """Each token is one to three after the one before it, around a circle."""
    drawn = np.random.default_rng(step).integers(1, 4, size=(setting.samples, setting.sequence_length + 1))
    return next_token_batch(np.cumsum(drawn, axis=1) % min(RULE_TOKENS, setting.shape.vocabulary_size))


def _step(trainer: Trainer, step: int, batch: Batch) -> tuple[float, float]:
    """Seconds and loss."""
    started = time.perf_counter()
    loss = trainer.accumulate(step, batch).loss
    trainer.update(step, 1.0)
    if trainer.world.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started, loss


@torch.no_grad()
def _with_same_weights(plain: Trainer, other: Trainer, batch: Batch) -> tuple[float, float]:
    """Shares by which the loss and, at most, a matrix's gradient differ."""
    pairs = list(zip(plain.model.parameters(), other.model.parameters(), strict=True))
    for ours, theirs in pairs:
        theirs.copy_(ours)
    with torch.enable_grad():
        loss = abs(other.accumulate(0, batch).loss / plain.accumulate(0, batch).loss - 1)
    gradients = [(ours.grad.float(), theirs.grad.float()) for ours, theirs in pairs]
    return loss, max(float((theirs - ours).norm() / ours.norm()) for ours, theirs in gradients if ours.ndim > 1)
