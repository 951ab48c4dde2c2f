"""Answers that the policy samples and a reward judges, as the rows of one step.

A group is the answers to one prompt. An answer that was cut off earns nothing, whatever it says. What was sampled is
what is trained: ids and their log-probabilities as the engine says them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from components.alignment.examples.chat import Conversation
from components.alignment.examples.packing import PackedRows
from components.alignment.policy.advantages import Estimator, advantages_of, gae
from components.core.errors import DataError
from components.inference.engine import Completion, Engine, Sampling
from components.training.engine.batches.batch import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Earned:
    """What answers have earned, shape (answers,), and what else was seen of them, which nobody is paid for."""

    values: NDArray[np.float64]
    figures: dict[str, float] = field(default_factory=dict)


Reward = Callable[[Sequence[int], Sequence[Completion]], Earned]
"""From numbers of prompts and an answer to each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """G answers to each of P prompts, prompt by prompt, what they earned, shape (P, G), and what else was seen."""

    prompts: list[tuple[int, ...]]
    answers: list[list[Completion]]
    rewards: NDArray[np.float64]
    seen: dict[str, float] = field(default_factory=dict)

    @property
    def dead_groups(self) -> int:
        """Groups whose answers earned the same: they say nothing about which is better."""
        return int((self.rewards == self.rewards[:, :1]).all(axis=1).sum())

    @property
    def figures(self) -> dict[str, float]:
        """What is reported of it."""
        every = [each for group in self.answers for each in group]
        return {
            **self.seen,
            "reward": float(self.rewards.mean()),
            "best_of_group": float(self.rewards.max(axis=1).mean()),
            "dead_groups": self.dead_groups / len(self.prompts),
            "cut_answers": sum(each.stop_id is None for each in every) / len(every),
            "answer_tokens": float(np.mean([len(each.ids) for each in every])),
        }


def roll_out(
    engine: Engine,
    prompts: Sequence[tuple[int, Sequence[int]]],
    sampling: Sampling,
    reward: Reward,
    *,
    stop_ids: Sequence[int],
) -> Rollout:
    """Sample and judge the answers to prompts, given by their numbers and ids. Raises DataError for a reward that is no
    number."""
    answers = engine.generate([ids for _, ids in prompts], sampling, stop_ids=stop_ids)
    numbers = [number for number, _ in prompts for _ in range(sampling.num_samples)]
    flat = [each for group in answers for each in group]
    earned = reward(numbers, flat)
    if strange := [each for each in earned.values.tolist() if not np.isfinite(each)]:
        raise DataError(f"the reward of an answer is {strange[0]}, needed a finite number; look at the reward model")
    whole = np.array([each.stop_id is not None for each in flat])
    return Rollout(
        prompts=[tuple(ids) for _, ids in prompts],
        answers=answers,
        rewards=np.where(whole, earned.values, np.minimum(earned.values, 0.0)).reshape(len(prompts), -1),
        seen=earned.figures,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """How rewards become what each token is told.

    critic   the value of each id before it was said; for gae alone
    """

    estimator: Estimator
    discount: float = 1.0
    decay: float = 1.0
    critic: Callable[[Sequence[Conversation]], list[NDArray[np.float32]]] | None = None

    def conversations(self, rollout: Rollout) -> list[Conversation]:
        """Every answer behind its prompt, with the columns of PolicyLoss; one without a token is left out."""
        plain: list[Conversation] = []
        columns: list[dict[str, NDArray[np.float32]]] = []
        places: list[tuple[int, int]] = []
        by_answer = None if self.estimator == "gae" else advantages_of(rollout.rewards, self.estimator)
        for group, prompt in enumerate(rollout.prompts):
            for number, answer in enumerate(rollout.answers[group]):
                if answer.ids:
                    plain.append(_conversation(prompt, answer))
                    columns.append(dict(plain[-1].columns))
                    places.append((group, number))
        values = self.critic(plain) if self.critic else [np.zeros(0, np.float32)] * len(plain)
        for each, column, place, value in zip(plain, columns, places, values, strict=True):
            if by_answer is None:
                column |= self._by_token(each, rollout.rewards[place], value)
            else:
                column["advantages"] = np.where(each.said, by_answer[place], 0.0).astype(np.float32)
        return [replace(each, columns=column) for each, column in zip(plain, columns, strict=True)]

    def _by_token(
        self, conversation: Conversation, reward: float, values: NDArray[np.float32]
    ) -> dict[str, NDArray[np.float32]]:
        """The reward comes with the last token; columns are 0 before the answer."""
        said = conversation.said
        earned = np.zeros(int(said.sum()))
        earned[-1] = reward
        advantages = gae(earned, values[said].astype(np.float64), discount=self.discount, decay=self.decay)
        columns = {name: np.zeros(len(said), np.float32) for name in ("advantages", "returns", "values")}
        columns["advantages"][said] = advantages
        columns["returns"][said] = advantages + values[said]
        columns["values"][said] = values[said]
        return columns


def _conversation(prompt: Sequence[int], answer: Completion) -> Conversation:
    assert answer.log_probs is not None, "rollouts are sampled with log_probs"
    ids = np.array([*prompt, *answer.ids], np.int32)
    said = np.arange(len(ids)) >= len(prompt)
    behaviour = np.zeros(len(ids), np.float32)
    behaviour[said] = answer.log_probs
    return Conversation(ids=ids, said=said, columns={"behaviour": behaviour})


def rows_of(conversations: Sequence[Conversation], length: int, pad: int) -> Batch:
    """All of them side by side in rows of `length` positions, longest first."""
    return PackedRows(conversations, iter(range(len(conversations))), length, pad).whole()
