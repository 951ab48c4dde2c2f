"""Reward models: a fine-tuned model with a head that scores answers, learned from pairs.

Training begins at the fine-tuned model, so that the reward model knows what the policy knows (Llama 2, section 3.2.2).
Kept beside the weights are mean and deviation of the scores of held-out answers, by which `score` whitens what it
gives. A score does not depend on what else is scored. The directory is one of AutoModelForSequenceClassification.
Not covered: several workers, adapters.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from components.alignment.examples.packing import order_of
from components.alignment.objectives import tuning
from components.alignment.objectives.engine_tuning import Tuned, train_on, trainer_of
from components.alignment.reward_models.ranking_loss import HEAD, PackedPairs, RankedPair, RankingLoss, scores_at
from components.core.errors import ArtifactError, DataError
from components.core.events import Events
from components.core.text import read_json_object
from components.tokens.encoding.special import SpecialTokens
from components.training.engine.batches.batch import Batch
from components.training.engine.model.forward import Tensors
from components.training.engine.trainer import Recipe

SCALE = "reward.json"
VOCABULARY = "tokenizer.json"
ANSWERS_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Mean and deviation of raw scores, and the digest of the tokenizer whose ids are scored."""

    mean: float
    deviation: float
    tokenizer: str

    def __post_init__(self) -> None:
        """Raise DataError for what would make every score infinite or no number."""
        if not (math.isfinite(self.mean) and math.isfinite(self.deviation) and self.deviation > 0):
            raise DataError(
                f"the reward model's scores have mean {self.mean:g} and deviation {self.deviation:g}: it tells no "
                "answer from another; needed finite scores that differ, look at the pairs and the learning rate"
            )


class RewardModel:
    """A model with a head, and the scale of its scores."""

    def __init__(self, model: PreTrainedModel, scale: Scale, pad: int) -> None:
        self.model = model.eval()
        self.scale = scale
        self.pad = pad

    @classmethod
    def open(cls, directory: Path, tokenizer: str) -> Self:
        """That of a directory. Raises ArtifactError when it cannot be read, or scores ids of another tokenizer.

        tokenizer   digest of the policy's tokenizer.json
        """
        try:
            content = read_json_object(directory / SCALE)
            scale = Scale(**content)
        except (OSError, ValueError, TypeError) as error:
            raise ArtifactError(
                f"{directory / SCALE}: cannot be read: {error}; train the reward model again"
            ) from error
        if scale.tokenizer != tokenizer:
            raise ArtifactError(
                f"{directory}: scores ids of tokenizer {scale.tokenizer[:12]}, the policy has {tokenizer[:12]}; train "
                "the reward model from the policy's own base"
            )
        return cls(_opened(directory), scale, SpecialTokens.read(directory).filler)

    @torch.no_grad()
    def score(self, answers: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Whitened scores of answers, each the ids of a prompt and what was said, shape (answers,)."""
        return (raw_scores(self.model, answers, self.pad) - self.scale.mean) / self.scale.deviation

    def save(self, directory: Path, source: Path) -> None:
        """A directory of transformers, with the source's tokenizer and the scale."""
        self.model.config.pad_token_id = self.pad
        self.model.save_pretrained(directory)
        (directory / tuning.WEIGHTS).chmod(0o644)
        tuning.copy_tokenizer(source, directory)
        content = {"mean": self.scale.mean, "deviation": self.scale.deviation, "tokenizer": self.scale.tokenizer}
        (directory / SCALE).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def _opened(directory: Path) -> PreTrainedModel:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it warns that a head is new
    transformers_logging.disable_progress_bar()
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        directory, num_labels=1, dtype=torch.float32, local_files_only=True
    )
    transformers_logging.set_verbosity(verbosity)
    return model


def with_head(sft: Path) -> PreTrainedModel:
    """The fine-tuned model with a head that scores everything 0."""
    model = _opened(sft)
    torch.nn.init.zeros_(model.get_submodule(HEAD).weight)
    return model


@torch.no_grad()
def raw_scores(model: PreTrainedModel, answers: Sequence[Sequence[int]], pad: int) -> NDArray[np.float64]:
    """Scores as the head gives them, shape (answers,). Each answer is read in a row of its own, from the left."""
    scores = np.zeros(len(answers))
    order = sorted(range(len(answers)), key=lambda each: len(answers[each]))
    for start in range(0, len(order), ANSWERS_AT_ONCE):
        part = order[start : start + ANSWERS_AT_ONCE]
        ids = np.full((len(part), max(len(answers[each]) for each in part)), pad, np.int64)
        ends = np.zeros(ids.shape, bool)
        for row, each in enumerate(part):
            ids[row, : len(answers[each])] = answers[each]
            ends[row, len(answers[each]) - 1] = True
        inputs = torch.from_numpy(ids).to(model.device)
        batch = Tensors(inputs=inputs, labels=inputs)
        scores[part] = scores_at(model, batch, torch.from_numpy(ends).to(model.device)).double().cpu().numpy()
    return scores


def train_reward_model(
    sft: Path,
    pairs: Sequence[RankedPair],
    heldout: Sequence[RankedPair],
    recipe: Recipe,
    steps_of: Callable[[float], tuning.Steps],
    run: Path,
    events: Events,
    *,
    row_tokens: int,
    batch_rows: int,
    tokenizer: str,
    seed: int,
) -> tuple[RewardModel, Tuned]:
    """A reward model of pairs, going on from the last good checkpoint below `run`.

    steps_of    the steps of a run, from those of one pass over the pairs
    Raises DataError where its scores are no finite numbers, or all alike.
    """
    pad = SpecialTokens.read(sft).filler
    rows = PackedPairs(pairs, order_of(["pairs"] * len(pairs), {}, seed), row_tokens, pad)
    model = with_head(sft)

    def batches(step: int) -> Batch:
        return rows.batch(range(step * batch_rows, (step + 1) * batch_rows))

    trainer = trainer_of(model, recipe, events.note, RankingLoss(model))
    tuned = train_on(trainer, batches, steps_of(rows.rows_of_epoch() / batch_rows), run, events)
    answers = [ids.tolist() for pair in heldout or pairs for ids in (pair.chosen, pair.rejected)]
    raw = raw_scores(model.eval(), answers, pad)
    scale = Scale(mean=float(raw.mean()), deviation=float(raw.std()), tokenizer=tokenizer)
    return RewardModel(model, scale, pad), tuned


def figures_of(model: RewardModel, heldout: Sequence[RankedPair]) -> dict[str, Any]:
    """Raw material of reward_figures: scores and lengths of the answers of held-out pairs, each of shape (pairs, 2)."""
    ids = [each.tolist() for pair in heldout for each in (pair.chosen, pair.rejected)]
    return {
        "scores": model.score(ids).reshape(-1, 2),
        "lengths": np.array([len(each) for each in ids]).reshape(-1, 2),
        "margins": np.array([pair.margin for pair in heldout]),
    }
