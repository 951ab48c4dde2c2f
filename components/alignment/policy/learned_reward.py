"""A reward model of the stage's own pairs, as what answers earn.

Some pairs are held out, by their prompts: the reward model is measured on them, and what it says of them is the scale
of its scores. Margins follow the grades of the pairs: what people called significantly, clearly, slightly and
negligibly better (Llama 2, arXiv:2307.09288, table 27, the small set).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from components.alignment.config import AlignConfig
from components.alignment.objectives import tuning
from components.alignment.objectives.dpo import PairsObjective
from components.alignment.objectives.objective import Setting
from components.alignment.policy.rollouts import Earned
from components.alignment.reward_models.ranking_loss import RankedPair
from components.alignment.reward_models.reward_figures import reward_figures
from components.alignment.reward_models.reward_model import RewardModel, figures_of, train_reward_model
from components.alignment.rewards.judge import GRADES, HIGHEST_GRADE
from components.alignment.rewards.verifier import Tier
from components.core.artifact import sha256_of
from components.core.errors import DataError
from components.inference.engine import Completion
from components.tokens.encoding.codec import TextCodec
from components.training.engine.optimizer import Rates
from components.training.engine.trainer import Recipe

TOKENIZER = "tokenizer.json"
LEAST_GRADE = min(GRADES.values())


def ranked(pairs: pl.DataFrame) -> list[RankedPair]:
    """Pairs of the stage's table with their margins, from 0 to 1."""
    return [
        RankedPair(
            chosen=pl.Series(row["prompt_ids"] + row["chosen_ids"], dtype=pl.Int32).to_numpy(),
            rejected=pl.Series(row["prompt_ids"] + row["rejected_ids"], dtype=pl.Int32).to_numpy(),
            margin=(grade_of(row) - LEAST_GRADE) / (HIGHEST_GRADE - LEAST_GRADE),
        )
        for row in pairs.iter_rows(named=True)
    ]


def grade_of(row: dict[str, Any]) -> float:
    """By how much the chosen answer is better: what programs say, else what the judge said."""
    if row["chosen_tier"] > row["rejected_tier"]:
        gap = row["chosen_tier"] - row["rejected_tier"]
        return float(HIGHEST_GRADE if row["chosen_tier"] == Tier.PASSES else min(HIGHEST_GRADE, gap))
    return float(min(HIGHEST_GRADE, max(LEAST_GRADE, HIGHEST_GRADE * row["margin"])))


class LearnedReward:
    """Scores of a reward model, whitened."""

    def __init__(self, model: RewardModel, prompts: Sequence[Sequence[int]]) -> None:
        self.model = model
        self.prompts = prompts

    def __call__(self, numbers: Sequence[int], answers: Sequence[Completion]) -> Earned:
        """What each answer has earned."""
        ids = [[*self.prompts[number], *each.ids] for number, each in zip(numbers, answers, strict=True)]
        return Earned(values=self.model.score(ids))


def learned_reward(
    config: AlignConfig, preferences: Path, codec: TextCodec, prompts: Sequence[Sequence[int]], setting: Setting
) -> tuple[LearnedReward, dict[str, Any]]:
    """A reward model in its share of the time that is left, saved below the artifact; and how good it is.

    Raises DataError where there are too few pairs, or its scores are no finite numbers that differ.
    """
    pairs, reward = PairsObjective(config, preferences, codec), config.policy.reward_model
    if pairs.reason is not None:
        raise DataError(f"a reward model needs pairs: {pairs.reason}; take align.policy.reward tests, or make more")
    fitting = [each for each in ranked(pairs.pairs) if len(each.chosen) + len(each.rejected) <= reward.row_tokens]
    heldout = ranked(pairs.held)
    left = setting.budget.seconds_left
    kept = setting.budget.reserve_seconds + (0.0 if left is None else max(0.0, left) * (1 - reward.share))
    budget = setting.budget.keep(kept)
    plan = config.model_copy(update={"max_epochs": reward.epochs, "max_steps": reward.max_steps, "decisions": ()})
    run = setting.checkpoints / "reward"
    run.mkdir(exist_ok=True)
    model, tuned = train_reward_model(
        setting.sft,
        fitting,
        heldout,
        recipe_of(config),
        lambda steps: tuning.plan_steps(plan, math.ceil(steps), budget),
        run,
        setting.events,
        row_tokens=reward.row_tokens,
        batch_rows=reward.batch_rows,
        tokenizer=sha256_of(setting.sft / TOKENIZER),
        seed=config.seed,
    )
    figures: dict[str, Any] = {
        "steps": tuned.steps,
        "pairs": len(fitting),
        "too_long": pairs.pairs.height - len(fitting),
    }
    if heldout:
        measured = reward_figures(**figures_of(model, heldout), deviation=model.scale.deviation, seed=config.seed)
        figures |= {name: asdict(each) for name, each in measured.items()}
        setting.events.metrics({f"reward_model_{name}": each.value for name, each in measured.items()}, tuned.steps)
    (setting.out / "reward").mkdir()
    model.save(setting.out / "reward", setting.sft)
    return LearnedReward(model, prompts), figures


def recipe_of(config: AlignConfig) -> Recipe:
    """The engine's recipe of a reward model."""
    reward = config.policy.reward_model
    return Recipe(
        precision="float32",
        compiled=False,
        micro_batch_samples=reward.batch_rows,
        rates=Rates(**reward.rates.model_dump(), optimizer="adamw", adamw_matrix=reward.adamw_matrix),
        report_every_steps=5,
        validate_every_steps=1 << 40,
        checkpoint_seconds=30.0,
    )
