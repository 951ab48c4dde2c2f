"""The on-policy loop: a step reads the policy's own answers, sampled with the very weights it trains.

The loop itself is the training engine's: checkpoints, the clock, going on after a kill. It asks for a step's batch,
and here that batch is sampled, judged and turned into advantages. A batch is kept until its last update, so that a run
that was broken off between two updates of one rollout goes on with it.

A step that was not trained on what was sampled is a fault that no curve shows. So after each rollout's first update:
    version   the engine says that it has the weights of this step
    gap       no token's ln p of trainer and engine differ by more than `max_gap` (other weights, other ids)
    surprise  the sum of ln p + entropy over the sampled tokens is 0 within `max_deviations` standard deviations; a
              sampler with another temperature, or one that leaves tokens out, is not
    moved     where rewards differed, the weights are others than before (an optimizer without parameters)
Each ends the run with one line. Not covered: several workers.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from components.alignment.examples.chat import Conversation, stop_ids
from components.alignment.objectives.engine_tuning import Tuned, train_on, trainer_of
from components.alignment.objectives.label_figures import token_nats_of
from components.alignment.objectives.tuning import Steps
from components.alignment.policy.advantages import Estimator
from components.alignment.policy.policy_loss import (
    CRITIC,
    Clip,
    PolicyFigures,
    PolicyLoss,
    add_critic,
    take_critic,
)
from components.alignment.policy.rollouts import Credit, Reward, Rollout, roll_out, rows_of
from components.core.errors import DataError, OvernightError
from components.core.events import Events
from components.inference.engine import Engine, Sampling
from components.tokens.encoding.special import SpecialTokens
from components.tokens.shards.order import samples_at
from components.training.engine.batches.batch import Batch
from components.training.engine.model.forward import Tensors, features
from components.training.engine.trainer import Recipe, Trainer

BATCH = "rollout-{}.npz"
ROWS = 64  # that the critic reads at once
FIELDS = ("inputs", "labels", "positions", "sources")


class PolicyFaultError(OvernightError):
    """What is trained is not what was sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a policy learns.

    prompts, group   prompts of a rollout, answers to each
    updates          steps on one rollout
    max_dead         rollouts in a row that may have no group whose answers differ
    """

    estimator: Estimator
    clip: Clip
    prompts: int
    group: int
    updates: int
    row_tokens: int
    max_new_tokens: int
    temperature: float
    seed: int
    discount: float = 1.0
    decay: float = 0.95
    max_gap: float = 1e-2
    max_deviations: float = 6.0
    max_dead: int = 5

    def sampling(self, number: int) -> Sampling:
        """That of a rollout: the whole vocabulary, so that what is sampled from is the policy itself."""
        return Sampling(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            num_samples=self.group,
            seed=self.seed + number,
            log_probs=True,
        )


def version_of(weights: Mapping[str, NDArray[np.float32]]) -> str:
    """sha256 of the weights, hex."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).data)
    return digest.hexdigest()


def weights_of(model: PreTrainedModel) -> dict[str, NDArray[np.float32]]:
    """The weights as they are, in float32, without the critic's."""
    named = model.named_parameters()
    return {name: each.detach().float().cpu().numpy() for name, each in named if not name.startswith(f"{CRITIC}.")}


class OnPolicy:
    """The batch of each step, and a watch over what came of the one before."""

    def __init__(
        self,
        plan: Plan,
        trainer: Trainer,
        engine: Engine,
        prompts: Sequence[Sequence[int]],
        reward: Reward,
        special: SpecialTokens,
        run: Path,
        report: Callable[[dict[str, float], int], None],
        reference: PreTrainedModel | None = None,
    ) -> None:
        """`report` gets the figures of each step; `reference` is the model that the policy is pulled towards.

        Raises DataError for what would teach the wrong end, or too much for a row.
        """
        self.plan = plan
        self.trainer = trainer
        self.engine = engine
        self.prompts = prompts
        self.reward = reward
        self.reference = reference
        self.run = run
        self.report = report
        self.pad = special.filler
        self.stops = stop_ids(special)
        if self.pad in self.stops:
            raise DataError(
                f"token {self.pad} fills rows and ends answers, so the end of an answer could not be told from what "
                "follows; needed a tokenizer with a token for each"
            )
        longest = max(map(len, prompts))
        if longest + plan.max_new_tokens > plan.row_tokens + 1:
            raise DataError(
                f"a prompt of {longest} tokens and an answer of {plan.max_new_tokens} do not fit into a row of "
                f"{plan.row_tokens}; raise align.policy.row_tokens"
            )
        self._step = -1
        self._batch: Batch | None = None
        self._version = ""
        self._informative = False
        self._dead = 0

    def __call__(self, step: int) -> Batch:
        """The batch of a step: the same one however often it is asked for. Raises PolicyFaultError."""
        if step != self._step or self._batch is None:
            if step == self._step + 1:
                self.check()
            number, update = divmod(step, self.plan.updates)
            if update and self._batch is None:
                self._batch = self._read(number)
            if not update or self._batch is None:
                self._batch = self._sample(number)
            self._step = step
        else:
            self._loss.figures = PolicyFigures()  # of the warm-up, which reads a step's batch before the step does
        return self._batch

    def check(self) -> None:
        """Judge the step that was just taken, and report its figures. Raises PolicyFaultError."""
        figures = self._loss.figures
        if self._step < 0 or not figures.tokens:
            return
        self._loss.figures = PolicyFigures()
        self.report(
            {
                "entropy": figures.entropy / figures.tokens,
                "kl": figures.kl / figures.tokens,
                "clipped": figures.clipped / figures.tokens,
                "gap": figures.ratio_gap,
                "value_error": figures.value_error / figures.tokens,
            },
            self._step,
        )
        if self._step % self.plan.updates == 0:
            self._check_sampled(figures)
        if self._informative and version_of(weights_of(self.trainer.model)) == self._version:
            raise PolicyFaultError(
                f"step {self._step}: the update has moved no weight; needed an optimizer that holds the model's"
            )

    def _check_sampled(self, figures: PolicyFigures) -> None:
        plan = self.plan
        if not figures.ratio_gap <= plan.max_gap:
            raise PolicyFaultError(
                f"step {self._step}: engine and trainer differ by {figures.ratio_gap:.3g} nats in what they say of a "
                f"token, align.policy.max_gap allows {plan.max_gap:g}; needed the same weights and ids on both sides"
            )
        deviations = abs(figures.surprise) / math.sqrt(max(figures.variance, 1e-12))
        if plan.temperature == 1 and deviations > plan.max_deviations:
            likely = "more" if figures.surprise > 0 else "less"
            raise PolicyFaultError(
                f"step {self._step}: the sampled tokens are {likely} probable than such samples are, by "
                f"{deviations:.1f} standard deviations; needed temperature 1 and the whole vocabulary in the sampler"
            )

    @property
    def _loss(self) -> PolicyLoss:
        loss = self.trainer.eager
        assert isinstance(loss, PolicyLoss)
        return loss

    def _sample(self, number: int) -> Batch:
        """The rows of one rollout with the weights of now."""
        plan = self.plan
        weights = weights_of(self.trainer.model)
        self._version = version_of(weights)
        self.engine.load(weights, self._version)
        if self.engine.version != self._version:
            raise PolicyFaultError(
                f"step {number * plan.updates}: the engine has weights {self.engine.version[:12] or 'of its directory'}"
                f", needed {self._version[:12]}, those of this step"
            )
        places = np.arange(number * plan.prompts, (number + 1) * plan.prompts)
        _, chosen = samples_at(places, len(self.prompts), plan.seed)
        prompts = [(each, self.prompts[each]) for each in chosen.tolist()]
        rollout = roll_out(self.engine, prompts, plan.sampling(number), self.reward, stop_ids=self.stops)
        self._count(rollout, number)
        critic = partial(values_of, self.trainer.model, pad=self.pad) if plan.estimator == "gae" else None
        credit = Credit(estimator=plan.estimator, discount=plan.discount, decay=plan.decay, critic=critic)
        batch = rows_of(credit.conversations(rollout), plan.row_tokens, self.pad)
        if self.reference is not None:
            likely = -token_nats_of(self.reference, batch)
            batch = replace(batch, columns={**batch.columns, "reference": likely})
        if plan.updates > 1:
            self._keep(number, batch)
        return batch

    def _count(self, rollout: Rollout, number: int) -> None:
        self.report(rollout.figures, number * self.plan.updates)
        self._informative = rollout.dead_groups < len(rollout.prompts)
        self._dead = 0 if self._informative else self._dead + 1
        if self._dead > self.plan.max_dead:
            raise DataError(
                f"{self._dead} rollouts in a row have no prompt whose answers earned different rewards, the last ones "
                f"{rollout.rewards.mean():.2f} on average; needed prompts that the model passes now and then"
            )

    def _keep(self, number: int, batch: Batch) -> None:
        """Write the rows aside, in the place of the last rollout's."""
        path = self.run / BATCH.format(number)
        arrays = {name: getattr(batch, name) for name in FIELDS} | dict(batch.columns)
        with path.with_suffix(".part").open("wb") as file:
            np.savez(file, **arrays)
        path.with_suffix(".part").replace(path)
        (self.run / BATCH.format(number - 1)).unlink(missing_ok=True)

    def _read(self, number: int) -> Batch | None:
        try:
            with np.load(self.run / BATCH.format(number), allow_pickle=False) as kept:
                arrays = dict(kept)
        except (OSError, ValueError):
            return None
        return Batch(**{name: arrays.pop(name) for name in FIELDS}, columns=arrays)


@torch.no_grad()
def values_of(model: PreTrainedModel, conversations: Sequence[Conversation], pad: int) -> list[NDArray[np.float32]]:
    """What the critic says before each id, shape (n + 1,) for each conversation; 0 for the first id."""
    critic, values = model.get_submodule(CRITIC), []
    for start in range(0, len(conversations), ROWS):
        part = conversations[start : start + ROWS]
        ids = np.full((len(part), max(each.positions for each in part)), pad, np.int64)
        for row, each in zip(ids, part, strict=True):
            row[: each.positions] = each.ids[:-1]
        inputs = torch.from_numpy(ids).to(model.device)
        said = critic(features(model, Tensors(inputs=inputs, labels=inputs)).hidden.float())[:, :, 0].cpu().numpy()
        values += [np.append(np.float32(0), row[: each.positions]) for row, each in zip(said, part, strict=True)]
    return values


def optimize(
    model: PreTrainedModel,
    plan: Plan,
    recipe: Recipe,
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    reward: Reward,
    special: SpecialTokens,
    steps: Steps,
    run: Path,
    events: Events,
) -> Tuned:
    """Train the policy in place, going on from the last good checkpoint below `run`.

    Raises PolicyFaultError, DataError, NonFiniteLossError and OutOfMemoryError.
    """
    reference = deepcopy(model).eval().requires_grad_(False) if plan.clip.kl else None
    if plan.estimator == "gae":
        add_critic(model)
    trainer = trainer_of(model, recipe, events.note, PolicyLoss(model, plan.clip))
    policy = OnPolicy(plan, trainer, engine, prompts, reward, special, run, events.metrics, reference)
    tuned = train_on(trainer, policy, steps, run, events)
    policy.check()
    take_critic(model)
    return tuned
