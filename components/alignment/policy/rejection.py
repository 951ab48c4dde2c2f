"""Rejection sampling: the best of several answers to each prompt is learned, round by round.

Touvron et al. 2023 (Llama 2, arXiv:2307.09288, section 3.2.3): each round samples with the model of now; the best
answer to a prompt so far, of whatever round, is what is learned from. Only answers that have earned something are:
where none has, a prompt waits for the next round. Of equal rewards the more probable answer is kept. Beside them
windows of pretraining are held to what the fine-tuned model says of them (anchored_loss.py).
"""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from components.alignment.config import AlignConfig
from components.alignment.examples.chat import Conversation, stop_ids
from components.alignment.examples.packing import PackedRows, order_of
from components.alignment.objectives import tuning
from components.alignment.objectives.anchored_loss import AnchoredLoss
from components.alignment.objectives.engine_tuning import COLUMNS, Batches, Tuned, train_on, trainer_of
from components.alignment.objectives.objective import Learned, Setting
from components.alignment.objectives.replay import Windows
from components.alignment.policy.on_policy import version_of, weights_of
from components.alignment.policy.prompts import Prompts
from components.alignment.policy.rollouts import Rollout, roll_out
from components.inference.engine import Engine, Sampling
from components.inference.open import open_engine
from components.tokens.encoding.codec import TextCodec
from components.tokens.shards.order import samples_at
from components.training.engine.optimizer import Rates
from components.training.engine.trainer import DTYPES, Recipe

KEPT_SECONDS = 30.0  # between checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best answer to a prompt so far."""

    conversation: Conversation
    reward: float
    log_prob: float
    round: int


def best_of(rollout: Rollout, numbers: Sequence[int], number: int, known: dict[int, Best]) -> None:
    """Take over what of a rollout is better than what is `known` of its prompts, by their numbers."""
    for place, prompt in enumerate(numbers):
        for answer, reward in zip(rollout.answers[place], rollout.rewards[place].tolist(), strict=True):
            if reward <= 0 or answer.log_probs is None:
                continue
            ids = np.array([*rollout.prompts[place], *answer.ids], np.int32)
            said = np.arange(len(ids)) >= len(rollout.prompts[place])
            each = Best(
                conversation=Conversation(ids=ids, said=said, source="best"),
                reward=reward,
                log_prob=float(answer.log_probs.sum()),
                round=number,
            )
            old = known.get(prompt)
            if old is None or (each.reward, each.log_prob) > (old.reward, old.log_prob):
                known[prompt] = each


class RejectionObjective:
    """Prompts with hidden tests whose best answers are learned."""

    columns: Sequence[str] = ("round", *COLUMNS)

    def __init__(self, config: AlignConfig, instructions: Path, codec: TextCodec) -> None:
        self.config = config
        self.codec = codec
        self.prompts = Prompts(config.policy, instructions, codec)
        self.statistics: dict[str, Any] = dict(self.prompts.statistics)

    @property
    def reason(self) -> str | None:
        """See Objective.reason."""
        return self.prompts.reason(self.config.rejection.min_answers)

    def learn(self, model: PreTrainedModel, setting: Setting) -> Learned:
        """See Objective.learn."""
        rejection = self.config.rejection
        started, steps = time.monotonic(), 0
        history: list[dict[str, Any]] = []
        decided: list[dict[str, Any]] = []
        rewards: list[float] = []
        known: dict[int, Best] = {}
        with closing(open_engine(setting.sft)) as engine:
            for number in range(rejection.rounds):
                rewards.append(self._sample(model, engine, number, known, setting))
                if len(known) < rejection.min_answers:
                    setting.events.note(f"round {number + 1}: {len(known)} prompts have an answer that earned anything")
                    continue
                tuned, taken = self._tune(model, [each.conversation for each in known.values()], number, setting)
                history += [{**row, "round": number + 1} for row in tuned.history]
                decided.append(taken)
                steps += tuned.steps
        figures: dict[str, Any] = {
            "rounds": len(decided),
            "reward_by_round": rewards,
            "answers_learned": len(known),
            "answers_by_round": [
                sum(each.round == number for each in known.values()) for number in range(len(rewards))
            ],
            "decided": {"rejection": {**rejection.model_dump(mode="json"), "decided": decided}},
        }
        reason = "no time was left to train" if decided else f"{len(known)} prompts have an answer that earned anything"
        return Learned(steps=steps, seconds=time.monotonic() - started, history=history, figures=figures, reason=reason)

    def _sample(
        self, model: PreTrainedModel, engine: Engine, number: int, known: dict[int, Best], setting: Setting
    ) -> float:
        """Take the answers of a round over into `known`; their mean reward."""
        rejection = self.config.rejection
        weights = weights_of(model)
        engine.load(weights, version_of(weights))
        size = min(rejection.prompts, len(self.prompts))
        _, chosen = samples_at(np.arange(number * size, (number + 1) * size), len(self.prompts), self.config.seed)
        sampling = Sampling(
            max_new_tokens=self.config.policy.max_new_tokens,
            temperature=rejection.temperature,
            num_samples=rejection.samples,
            seed=self.config.seed + number,
            log_probs=True,
        )
        numbers = chosen.tolist()
        rollout = roll_out(
            engine,
            [(each, self.prompts.ids[each]) for each in numbers],
            sampling,
            self.prompts.reward(),
            stop_ids=stop_ids(self.codec.special),
        )
        best_of(rollout, numbers, number, known)
        setting.events.metrics({**rollout.figures, "answers_learned": float(len(known))}, number)
        return rollout.figures["reward"]

    def _tune(
        self, model: PreTrainedModel, conversations: Sequence[Conversation], number: int, setting: Setting
    ) -> tuple[Tuned, dict[str, Any]]:
        """Learn the best answers so far, in this round's share of the time that is left."""
        config, rejection = self.config, self.config.rejection
        left = setting.budget.seconds_left
        later = 0.0 if left is None else max(0.0, left) * (rejection.rounds - number - 1) / (rejection.rounds - number)
        budget = setting.budget.keep(setting.budget.reserve_seconds + later)
        batches = self._batches(conversations, number, setting)
        replayed = rejection.decided[number] if number < len(rejection.decided) else None
        plan = config.model_copy(
            update={"max_epochs": rejection.epochs, **(replayed.model_dump() if replayed else {"decisions": ()})}
        )
        steps = tuning.plan_steps(plan, batches.steps_of_epoch, budget)
        base = tuning.load_model(setting.sft).to(DTYPES[config.precision])
        loss = AnchoredLoss(model, base, rejection.replay.anchor) if batches.anchored and batches.replayed else None
        trainer = trainer_of(model, self._recipe(), setting.events.note, loss)
        run = setting.checkpoints / f"round-{number + 1}"
        run.mkdir(exist_ok=True)
        return train_on(trainer, batches, steps, run, setting.events), steps.decided()

    def _batches(self, conversations: Sequence[Conversation], number: int, setting: Setting) -> Batches:
        config, rejection = self.config, self.config.rejection
        rows, replay = rejection.batch_rows, rejection.replay
        replayed = min(rows - 1, round(replay.share * rows))
        special = self.codec.special
        order = order_of([each.source for each in conversations], {}, config.seed + number)
        windows = Windows(
            setting.tokens,
            setting.sft,
            split="train",
            length=config.policy.row_tokens,
            infill_rate=replay.infill_rate if special.fim_middle is not None else 0.0,
            seed=config.seed + number,
        )
        return Batches(
            conversations=PackedRows(conversations, order, config.policy.row_tokens, special.filler),
            windows=windows if replayed else None,
            batch_rows=rows,
            replayed=replayed,
            anchored=replay.anchor > 0,
        )

    def _recipe(self) -> Recipe:
        rejection = self.config.rejection
        return Recipe(
            precision=self.config.precision,
            compiled=False,
            scored_only=True,
            micro_batch_samples=rejection.batch_rows,
            rates=Rates(**rejection.rates.model_dump(), optimizer="adamw", adamw_matrix=rejection.adamw_matrix),
            report_every_steps=5,
            validate_every_steps=1 << 40,
            checkpoint_seconds=KEPT_SECONDS,
        )
