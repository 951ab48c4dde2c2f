"""Direct preference optimization (Rafailov 2023, arXiv:2305.18290) of a model on pairs of answers, by TRL.

Not covered: answers without a counterpart (KTO), rewards from programs during training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from datasets import Dataset
from transformers import PreTrainedModel
from trl import DPOConfig as TrlConfig
from trl import DPOTrainer

from components.alignment.config import AlignConfig
from components.alignment.examples.chat import answer_tokens, prompt_tokens
from components.alignment.objectives import tuning
from components.core.events import Events
from components.tokens.encoding.codec import TextCodec

COLUMNS = {
    "tokens": "num_tokens",
    "loss": "loss",
    "learning_rate": "learning_rate",
    "reward_accuracy": "rewards/accuracies",
    "reward_margin": "rewards/margins",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPair:
    """Token ids of one pair: the prompt up to <|assistant|>, and both answers with their <|end|>."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    def row(self, answer: list[int]) -> tuning.Row:
        """One answer after the prompt, with labels on the answer."""
        return {"input_ids": self.prompt + answer, "labels": [-100] * len(self.prompt) + answer}


def encode(pairs: pl.DataFrame, codec: TextCodec, max_tokens: int) -> list[EncodedPair]:
    """Pairs as tokens, answers cut so that prompt and answer have at most `max_tokens`."""
    encoded = []
    for prompt, chosen, rejected in pairs.select("prompt", "chosen", "rejected").iter_rows():
        head = prompt_tokens(codec.encode(prompt), special=codec.special)
        room = max_tokens - len(head)
        if room > 0:
            answers = [answer_tokens(codec.encode(each), special=codec.special)[:room] for each in (chosen, rejected)]
            encoded.append(EncodedPair(prompt=head, chosen=answers[0], rejected=answers[1]))
    return encoded


class _EncodedTrainer(DPOTrainer):  # type: ignore[misc]  # trl has no stubs
    """DPOTrainer for pairs that are token ids and bring their reference log probabilities.

    Text would be tokenized with special tokens read out of it, and trl would batch the reference pass by order, not by
    length. A test holds it to the loss of log 2 at the first step, which only right references give.
    """

    def _prepare_dataset(self, dataset: Dataset, *arguments: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *arguments: Any) -> Dataset:
        return dataset


def optimize(
    model: PreTrainedModel,
    pairs: Sequence[EncodedPair],
    config: AlignConfig,
    sft: Path,
    steps: tuning.Steps,
    events: Events,
) -> tuning.Reporter:
    """Train the model in place against itself as it was; the figures by step."""
    reporter = tuning.Reporter(events, steps, COLUMNS)
    reference = measure(model, pairs, config.batch_size)
    columns = {
        "prompt_ids": [each.prompt for each in pairs],
        "chosen_ids": [each.chosen for each in pairs],
        "rejected_ids": [each.rejected for each in pairs],
        "ref_chosen_logps": reference.chosen,
        "ref_rejected_logps": reference.rejected,
    }
    with tuning.scratch_directory() as directory:
        trainer = _EncodedTrainer(
            model=model,
            args=TrlConfig(
                **tuning.trl_arguments(config, steps, directory),
                beta=config.beta,
                max_length=config.max_tokens,
                precompute_ref_log_probs=True,  # they are columns of the dataset
            ),
            train_dataset=Dataset.from_dict(columns),
            processing_class=tuning.load_tokenizer(sft),
            callbacks=[reporter],
            optimizers=tuning.optimizer_and_rate(model, config.learning_rate, steps),
        )
        tuning.train(trainer, steps)
    return reporter


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """log p(chosen) and log p(rejected) of each held-out pair, in nats, under one model."""

    chosen: list[float]
    rejected: list[float]

    def accuracy(self) -> float:
        """Share of pairs whose chosen answer is the more probable one."""
        return sum(better > worse for better, worse in zip(self.chosen, self.rejected, strict=True)) / len(self.chosen)

    def since(self, before: "Margins") -> "Margins":
        """How far each log probability has moved: DPO's implicit rewards over beta."""
        return Margins(
            chosen=[now - then for now, then in zip(self.chosen, before.chosen, strict=True)],
            rejected=[now - then for now, then in zip(self.rejected, before.rejected, strict=True)],
        )

    def mean(self) -> float:
        """Mean of chosen minus rejected."""
        return (sum(self.chosen) - sum(self.rejected)) / len(self.chosen)


def measure(model: PreTrainedModel, pairs: Sequence[EncodedPair], batch_size: int) -> Margins:
    """Both log probabilities of every pair."""
    return Margins(
        chosen=tuning.log_likelihoods(model, [each.row(each.chosen) for each in pairs], batch_size),
        rejected=tuning.log_likelihoods(model, [each.row(each.rejected) for each in pairs], batch_size),
    )


def compare(before: Margins, after: Margins, beta: float) -> dict[str, float]:
    """Held-out figures. Before training every reward is zero, so only the plain preference exists on both sides."""
    rewards = after.since(before)
    return {
        "heldout_preference_accuracy_before": before.accuracy(),
        "heldout_preference_accuracy_after": after.accuracy(),
        "heldout_reward_accuracy_after": rewards.accuracy(),
        "heldout_reward_margin_after": beta * rewards.mean(),
    }
