"""A few timed steps on this machine, with the very engine. Imports torch; only deadline mode pays for it."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from components.training.engine.batches.batch import Batch, next_token_batch
from components.training.engine.figures import gemm_flops
from components.training.engine.model.architectures import build
from components.training.engine.model.shape import Shape, stand_in
from components.training.engine.optimizer import Rates
from components.training.engine.reason import reason_of
from components.training.engine.trainer import DTYPES, Precision, Recipe, Trainer, World

# Rates do not change the speed of a step; these keep random tokens from giving infinities.
RATES = Rates(
    matrix=1e-3,
    embedding=1e-3,
    output=1e-3,
    norm=1e-3,
    momentum=0.9,
    momentum_warmup_steps=0,
    weight_decay=0.0,
    betas=(0.9, 0.95),
    epsilon=1e-8,
    clip_norm=1.0,
)
MINIMUM_STEPS = 3


def step_seconds(
    shape: Shape, precision: Precision, *, samples: int, sequence_length: int, device: str, limit_seconds: float
) -> float:
    """The fastest of a few eager steps of one micro-batch: other processes can only slow a step down.

    A checkpoint that is gone on from is timed as a llama of its sizes; an encoder-decoder reads half of each window on
    each side.
    """
    recipe = Recipe(
        precision=precision,
        compiled=False,
        micro_batch_samples=samples,
        rates=RATES,
        report_every_steps=1,
        validate_every_steps=1,
        checkpoint_seconds=float("inf"),
    )
    timed = shape if shape.counted is None else stand_in(shape)
    trainer = Trainer(build(timed, 0, 0), recipe, World(device=device), lambda _: None)
    windows = np.random.default_rng(0).integers(0, shape.vocabulary_size, size=(samples, sequence_length + 1))
    batch = next_token_batch(windows)
    if shape.kind == "encoder-decoder":
        half = sequence_length // 2
        left, right = batch.inputs[:, :half], batch.positions[:, :half]
        batch = replace(next_token_batch(windows[:, half:]), encoder_inputs=left, encoder_positions=right)
    trainer.warm_up(batch)
    return min(_timed_steps(trainer, batch, limit_seconds))


def _timed_steps(trainer: Trainer, batch: Batch, limit: float) -> Iterator[float]:
    until = time.monotonic() + limit
    for step in itertools.count():
        started = time.monotonic()
        trainer.accumulate(step, batch)
        trainer.update(step, 1.0)
        seconds = time.monotonic() - started
        yield seconds
        # A step that takes all the time there is says enough: a checkpoint's in emulated bfloat16 takes minutes.
        if time.monotonic() > until and (step + 1 >= MINIMUM_STEPS or seconds > limit):
            return


def product_flops(precision: Precision, device: str) -> float:
    """FLOP/s of one product, in a second: whether the device has a precision or imitates it."""
    return gemm_flops(DTYPES[precision], device)


def multiplication_flops(precision: Precision, shape: Shape, rows: int, device: str, limit_seconds: float) -> float:
    """FLOP/s of the products of one block and the output, the fastest of a few rounds.

    What is left of a compiled step is mostly these; eager steps are dominated by element-wise passes, which made
    float32 look faster on cores where compiled bfloat16 is 1.5 times as fast.
    """
    dtype = DTYPES[precision]
    sides = [(shape.width, shape.width), (shape.width, shape.feed_forward), (shape.width, shape.vocabulary_size)]
    pairs = [
        (torch.ones(rows, inner, dtype=dtype, device=device), torch.ones(inner, outer, dtype=dtype, device=device))
        for inner, outer in sides
    ]
    flops = sum(2 * rows * inner * outer for inner, outer in sides)
    until, best = time.monotonic() + limit_seconds, float("inf")
    while time.monotonic() < until:
        started = time.monotonic()
        for left, right in pairs:
            left @ right
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.monotonic() - started)
    return flops / best


def compiler_fault() -> str | None:
    """Why torch.compile cannot be used here, in one line; None when it can. A few seconds, once a machine: cached."""
    try:
        torch.compile(lambda values: values * 2 + 1, dynamic=False)(torch.ones(8))
    except Exception as error:  # the compiler's failures have no common class
        return reason_of(error)
    return None
