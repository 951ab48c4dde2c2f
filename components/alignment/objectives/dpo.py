"""Direct preference optimization (Rafailov 2023, arXiv:2305.18290) of a model on pairs of answers, by TRL.

Not covered: answers without a counterpart (KTO), rewards from programs during training.
"""

import hashlib
import math
import time
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
from components.alignment.examples.chat import stop_ids
from components.alignment.examples.lengths import fitting
from components.alignment.objectives import tuning
from components.alignment.objectives.objective import Learned, Setting
from components.alignment.objectives.trained_ids import check_labels
from components.alignment.objectives.trl_trainer import (
    Reporter,
    arguments,
    load_tokenizer,
    optimizer_and_rate,
    scratch_directory,
    train,
)
from components.core.errors import DataError
from components.core.events import Events
from components.tokens.encoding.codec import TextCodec
from components.tokens.encoding.special import SpecialTokens
from components.training.engine.batches.batch import IGNORED

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")

COLUMNS = {
    "tokens": "num_tokens",
    "loss": "loss",
    "learning_rate": "learning_rate",
    "reward_accuracy": "rewards/accuracies",
    "reward_margin": "rewards/margins",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPair:
    """Token ids of one pair as they were sampled: the prompt up to <|assistant|>, and both answers, with the token that
    ended them where one did."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    def row(self, answer: list[int]) -> tuning.Row:
        """One answer after the prompt, with labels on the answer."""
        return {"input_ids": self.prompt + answer, "labels": [IGNORED] * len(self.prompt) + answer}


def split(pairs: pl.DataFrame, heldout_fraction: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs to learn from, and pairs held out, by a hash of the prompt."""
    points = [int.from_bytes(hashlib.sha256(each.encode()).digest()[8:16]) / 2**64 for each in pairs["prompt"]]
    held = pl.Series(points, dtype=pl.Float64) < heldout_fraction
    return pairs.filter(~held), pairs.filter(held)


class PairsObjective:
    """Pairs of answers, of which some are held out."""

    columns: Sequence[str] = tuple(COLUMNS)

    def __init__(self, config: AlignConfig, preferences: Path, codec: TextCodec) -> None:
        """Raises DataError for pairs that cannot be learned from; see read_pairs."""
        self.config = config
        path = preferences / "preferences.parquet"
        table, too_long = read_pairs(path, config, codec.special, codec.vocabulary_size)
        self.pairs, self.held = split(table, config.heldout_fraction)
        self.statistics: dict[str, Any] = {
            "pairs": self.pairs.height,
            "heldout_pairs": self.held.height,
            "dropped": {"too_long": too_long},
        }

    @property
    def reason(self) -> str | None:
        """See Objective.reason."""
        if self.pairs.height >= self.config.min_pairs:
            return None
        return f"found {self.pairs.height} pairs to learn from, align.min_pairs needs {self.config.min_pairs}"

    def learn(self, model: PreTrainedModel, setting: Setting) -> Learned:
        """See Objective.learn."""
        config, heldout = self.config, encoded(self.held)
        measuring = time.monotonic()
        before = measure(model, heldout, config.batch_size) if heldout else None
        measuring = time.monotonic() - measuring
        run: dict[str, Any] = {}
        if before is not None and (gap := sampling_gap(before, self.held, setting.digest)) is not None:
            setting.events.metric("sampling_gap_nats_per_token", gap, 0)
            run["sampling_gap_nats_per_token"] = gap
        budget = setting.budget.keep(setting.budget.reserve_seconds + 1.2 * measuring)
        steps = tuning.plan_steps(config, math.ceil(self.pairs.height / config.batch_size), budget)
        training = time.monotonic()
        reporter = optimize(model, encoded(self.pairs), config, setting.sft, steps, setting.events)
        training = time.monotonic() - training
        figures: dict[str, Any] = {"decided": steps.decided()}
        if before is not None:
            compared = compare(before, measure(model, heldout, config.batch_size), config.beta)
            setting.events.metrics(compared, reporter.last_step)
            figures |= compared
        return Learned(steps=reporter.last_step, seconds=training, history=reporter.rows, figures=figures, run=run)


def read_pairs(
    path: Path, config: AlignConfig, special: SpecialTokens, vocabulary_size: int
) -> tuple[pl.DataFrame, int]:
    """The pairs of a file as they are, nothing encoded or cut, and how many were left out: longer than `max_tokens`.

    Raises DataError for a file without ids, for pairs that cannot be learned from, and when too many are too long.
    """
    pairs = pl.read_parquet(path)
    if missing := [name for name in IDS if name not in pairs.columns]:
        raise DataError(f"{path}: lacks {', '.join(missing)}; needed the ids that were sampled, make the pairs again")
    for side in ("chosen_ids", "rejected_ids"):
        check_labels(
            pairs[side],
            pad=special.filler,
            stops=stop_ids(special),
            vocabulary_size=vocabulary_size,
            where=f"{path}: {side}",
        )
    equal = (pairs["chosen_ids"] == pairs["rejected_ids"]).arg_true()
    if len(equal):
        raise DataError(
            f"{path}: row {equal[0]} has the same answer twice, which prefers nothing; needed two that differ"
        )
    lengths = pairs.select(
        pl.col("prompt_ids").list.len() + pl.max_horizontal(pl.col("chosen_ids", "rejected_ids").list.len())
    )
    kept = fitting(
        lengths.to_series().to_list(), config.max_tokens, config.max_too_long, where=str(path), bound="align.max_tokens"
    )
    return pairs[kept], pairs.height - len(kept)


def encoded(pairs: pl.DataFrame) -> list[EncodedPair]:
    """The ids of each pair."""
    return [
        EncodedPair(prompt=prompt, chosen=chosen, rejected=rejected)
        for prompt, chosen, rejected in pairs.select(IDS).iter_rows()
    ]


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
) -> Reporter:
    """Train the model in place against itself as it was; the figures by step."""
    reporter = Reporter(events, steps, COLUMNS)
    reference = measure(model, pairs, config.batch_size)
    columns = {
        "prompt_ids": [each.prompt for each in pairs],
        "chosen_ids": [each.chosen for each in pairs],
        "rejected_ids": [each.rejected for each in pairs],
        "ref_chosen_logps": reference.chosen,
        "ref_rejected_logps": reference.rejected,
    }
    with scratch_directory() as directory:
        trainer = _EncodedTrainer(
            model=model,
            args=TrlConfig(
                **arguments(config, steps, directory),
                beta=config.beta,
                loss_type=[*config.losses],
                loss_weights=[*config.losses.values()],
                label_smoothing=config.label_smoothing,
                max_length=None,  # none is longer than max_tokens; trl would cut
                precompute_ref_log_probs=True,  # they are columns of the dataset
            ),
            train_dataset=Dataset.from_dict(columns),
            processing_class=load_tokenizer(sft),
            callbacks=[reporter],
            optimizers=optimizer_and_rate(model, config.learning_rate, steps),
        )
        train(trainer, steps)
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


def sampling_gap(before: Margins, pairs: pl.DataFrame, checkpoint: str) -> float | None:
    """Largest difference, in nats per token, between what the engine said of the answers that a checkpoint sampled and
    what that checkpoint says here; None where it sampled none. Far from 0: other ids, weights or temperature."""
    gaps = [
        abs(said - now) / length
        for side, values in (("chosen", before.chosen), ("rejected", before.rejected))
        for now, said, source, length in zip(
            values,
            pairs[f"{side}_log_prob"],
            pairs[f"{side}_checkpoint"],
            pairs[f"{side}_ids"].list.len(),
            strict=True,
        )
        if source == checkpoint
    ]
    return max(gaps, default=None)


def compare(before: Margins, after: Margins, beta: float) -> dict[str, float]:
    """Held-out figures. Before training every reward is zero, so only the plain preference exists on both sides."""
    rewards = after.since(before)
    return {
        "heldout_preference_accuracy_before": before.accuracy(),
        "heldout_preference_accuracy_after": after.accuracy(),
        "heldout_reward_accuracy_after": rewards.accuracy(),
        "heldout_reward_margin_after": beta * rewards.mean(),
    }
