"""A run small enough for tests: 2 layers of 64, vocabulary 128, windows of 32 tokens."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers.modeling_utils import PreTrainedModel

from components.tokens.shards.order import places_of_step, samples_at
from components.training.engine.batches.batch import Batch, next_token_batch
from components.training.engine.checkpoint import Checkpoint, name_of
from components.training.engine.figures import Report
from components.training.engine.loop import Outcome, train
from components.training.engine.model.architectures import build
from components.training.engine.model.shape import shape_of
from components.training.engine.optimizer import Rates
from components.training.engine.schedule import fixed
from components.training.engine.trainer import Recipe, Trainer, World

RATES = Rates(
    matrix=0.02,
    embedding=0.1,
    output=0.01,
    norm=0.01,
    momentum=0.95,
    momentum_warmup_steps=10,
    weight_decay=0.01,
    betas=(0.8, 0.95),
    epsilon=1e-10,
    clip_norm=1.0,
)
SHAPE = shape_of(
    architecture="qwen3",
    vocabulary_size=128,
    context=32,
    layers=2,
    width=64,
    head_width=32,
    queries_per_key_value=2,
    rope_theta=10_000.0,
    tied=False,
)
# A text of a hidden rule: each token follows from the one before, so a model can learn it.
TOKENS = np.cumsum(np.random.default_rng(0).integers(1, 4, size=4097)) % 128


def batches_for(world: World, batch: int = 8) -> Callable[[int], Batch]:
    """This worker's samples of a step."""

    def batches(step: int) -> Batch:
        _, samples = samples_at(places_of_step(step, batch, world.rank, world.size), 128, 0)
        return next_token_batch(np.stack([TOKENS[sample * 32 : sample * 32 + 33] for sample in samples]))

    return batches


def recipe(
    *,
    precision: str = "float32",
    compiled: bool = False,
    micro: int = 8,
    checkpoint_seconds: float = 1e9,
    parallel: str = "data",
    activation_checkpointing: bool = False,
    validate_every_steps: int = 1000,
) -> Recipe:
    """What the tests vary."""
    return Recipe(
        precision=precision,  # type: ignore[arg-type]
        compiled=compiled,
        micro_batch_samples=micro,
        rates=RATES,
        report_every_steps=5,
        validate_every_steps=validate_every_steps,
        checkpoint_seconds=checkpoint_seconds,
        parallel=parallel,  # type: ignore[arg-type]
        activation_checkpointing=activation_checkpointing,
    )


def run_small(
    run: Path,
    *,
    steps: int = 20,
    how: Recipe | None = None,
    world: World | None = None,
    batches: Callable[[int], Batch] | None = None,
    report: Callable[[Report], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
    began_at: float | None = None,
    sources: Sequence[str] = (),
    validate: Callable[[PreTrainedModel], float] | None = None,
) -> tuple[Outcome, dict[str, torch.Tensor]]:
    """Train from the last checkpoint of `run` to `steps`; the outcome and a copy of the weights."""
    world = world or World()
    trainer = Trainer(build(SHAPE, 0, 0), how or recipe(), world, note)
    outcome = train(
        trainer,
        batches=batches or batches_for(world),
        schedule=fixed(3, 0.1, [(10, steps)]),
        pace=None,
        run=run,
        report=report,
        validate=validate,
        began_at=began_at,
        sources=sources,
    )
    return outcome, Checkpoint(run / name_of(outcome.steps)).weights()


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    """Equal bit for bit."""
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
