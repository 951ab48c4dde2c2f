"""Train one size to several lengths for little more than the longest costs. Imports torch: only workers import it.

The learning rate is constant until it decays, so runs of different lengths share their stable part: it is trained once,
and from it each length decays on its own (Haegele et al. 2024, arXiv:2405.18392, section 4). The runs are those of
pretrain: its samples, recipe, rates and share of decay, measured on the same held-out documents.
"""

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from components.tokens.encoding.special import SpecialTokens
from components.training.engine.checkpoint import WEIGHT
from components.training.engine.devices.parallel import World
from components.training.engine.model.architectures import build
from components.training.engine.schedule import Schedule, decay_start, fixed
from components.training.engine.trainer import Trainer
from components.training.run.held_out import Validation
from components.training.run.samples import Samples
from components.training.run.worker import recipe_of, started_from_bigrams
from components.training.run.worker_input import Work


def train_lengths(
    work: Work,
    lengths: Mapping[int, bool],
    device: str,
    *,
    until: float,
    keep: Callable[[int, float], None],
    note: Callable[[str], None],
) -> None:
    """Train to each length that is wanted and hand (steps, held-out bits per byte) to `keep`.

    lengths     steps, rising -> whether this length is still to be measured
    until       time.monotonic() after which no further length is begun; the first one is always done
    """
    torch.set_num_threads(work.threads)
    samples = Samples(work, 0, 1)
    end_of_text = SpecialTokens.read(work.tokenizer).end_of_text
    model = build(work.plan.shape, work.config.seed, end_of_text)
    world = World(device=device)
    started_from_bigrams(work, world, model, note)
    trainer = Trainer(model, recipe_of(work), world, note)
    trainer.warm_up(samples(0))
    validation = Validation(work, work.config.final_validation_bytes, device)
    reached, measured = 0, 0
    for steps, wanted in lengths.items():
        if not wanted:
            continue
        if measured and time.monotonic() > until:
            note(f"{work.plan.shape.layers} x {work.plan.shape.width}: no time for {steps} steps")
            return
        branch = decay_start(steps, work.config.decay_share)
        _advance(trainer, samples, _schedule(work, []), reached, branch)
        copied, reached = _copied(trainer), branch
        _advance(trainer, samples, _schedule(work, [(branch, steps)]), branch, steps)
        keep(steps, _measured(work, trainer, validation))
        measured += 1
        _restore(trainer, copied)


def _schedule(work: Work, decisions: list[tuple[int, int]]) -> Schedule:
    return fixed(work.config.warmup_steps, work.config.final_share, decisions)


def _advance(trainer: Trainer, samples: Samples, schedule: Schedule, first: int, end: int) -> None:
    """Take the steps from `first` up to `end`, the last one left out."""
    for step in range(first, end):
        trainer.accumulate(step, samples(step))
        trainer.update(step, schedule.share(step))


def _copied(trainer: Trainer) -> list[Tensor]:
    """Weights and momenta, to go on from again."""
    return [each.tensor.clone() for each in trainer.optimizer.pieces()]


@torch.no_grad()
def _restore(trainer: Trainer, copied: list[Tensor]) -> None:
    """Go back to where a copy was taken."""
    for piece, saved in zip(trainer.optimizer.pieces(), copied, strict=True):
        piece.tensor.copy_(saved)
    trainer.optimizer.write_back()


def _measured(work: Work, trainer: Trainer, validation: Validation) -> float:
    """Bits per byte of the float32 weights, as pretrain's last validation has it."""
    model = build(work.plan.shape, work.config.seed, validation.end_of_text)
    weights = {
        each.name.removeprefix(WEIGHT): each.tensor.view(each.shape)
        for each in trainer.optimizer.pieces()
        if each.name.startswith(WEIGHT)
    }
    model.load_state_dict(weights, strict=not work.plan.shape.tied)
    return validation(model.to(trainer.world.device).eval())
