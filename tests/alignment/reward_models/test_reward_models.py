"""Reward models: the loss against NumPy, what they learn of planted preferences, and how a bias shows."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.alignment.examples.packing import order_of
from components.alignment.objectives.tuning import Steps
from components.alignment.reward_models.ranking_loss import PackedPairs, RankedPair, RankingLoss
from components.alignment.reward_models.reward_figures import reward_figures, spearman
from components.alignment.reward_models.reward_model import (
    RewardModel,
    figures_of,
    raw_scores,
    train_reward_model,
    with_head,
)
from components.core.errors import ArtifactError, DataError
from components.core.events import Events
from components.deadline.budget import Budget
from components.training.engine.schedule import Schedule
from components.training.engine.trainer import Recipe
from tests.margins import Margins
from tests.training.runs import RATES

pytestmark = pytest.mark.numeric
GOOD = 300  # a token that makes an answer worth having
RECIPE = Recipe(
    precision="float32",
    compiled=False,
    micro_batch_samples=8,
    rates=replace(
        RATES, optimizer="adamw", adamw_matrix=3e-3, embedding=3e-3, output=3e-3, norm=3e-3, betas=(0.9, 0.95)
    ),
    report_every_steps=10,
    validate_every_steps=1 << 40,
    checkpoint_seconds=1000.0,
)


def pairs(number: int, seed: int, *, prefers_longer: float) -> list[RankedPair]:
    """Answers of 4 to 12 tokens of which one has GOOD. It is chosen, but for a share where the longer one is.

    Their last token says how long they are, as the end of a text may: a model of one block cannot count.
    """
    random = np.random.default_rng(seed)
    made = []
    for _ in range(number):
        prompt = random.integers(20, 280, size=4)
        answers = [random.integers(20, 280, size=size) for size in random.choice(np.arange(4, 13), 2, replace=False)]
        for each in answers:
            each[-1] = 282 + len(each)
        good = int(random.integers(2))
        answers[good][random.integers(3)] = GOOD
        chosen = int(len(answers[1]) > len(answers[0])) if random.random() < prefers_longer else good
        ids = [np.concatenate([prompt, each]).astype(np.int32) for each in answers]
        made.append(RankedPair(chosen=ids[chosen], rejected=ids[1 - chosen], margin=float(random.integers(3)) / 3))
    return made


def trained(world: Path, run: Path, learned: list[RankedPair], heldout: list[RankedPair], steps: int) -> RewardModel:
    run.mkdir()
    return train_reward_model(
        world / "base",
        learned,
        heldout,
        RECIPE,
        lambda _: Steps(
            num_steps=steps,
            schedule=Schedule(final_share=0.1, decisions=[(0, steps)]),
            budget=Budget(seconds=None, started=0.0),
        ),
        run,
        Events("test"),
        row_tokens=128,
        batch_rows=4,
        tokenizer="one",
        seed=0,
    )[0]


@pytest.fixture(scope="module")
def model(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    """Of a preference without a bias."""
    folder = tmp_path_factory.mktemp("reward")
    return trained(world, folder / "run", pairs(600, 0, prefers_longer=0.0), pairs(100, 1, prefers_longer=0.0), 100)


def test_the_loss_is_that_of_numpy(world: Path, margins: Margins) -> None:
    some = pairs(9, 3, prefers_longer=0.0)
    batch = PackedPairs(some, iter(range(9)), 64, 4)
    rows = [batch.members(0), batch.members(1), batch.members(2)]
    model = with_head(world / "base")
    torch.nn.init.normal_(model.get_submodule("score").weight, generator=torch.Generator().manual_seed(0))
    read = batch.batch(range(3))
    arrays = {"inputs": read.inputs, "labels": read.labels, "positions": read.positions, **read.columns}
    total, _, by_row = RankingLoss(model)(**{name: torch.from_numpy(np.array(each)) for name, each in arrays.items()})
    wanted = []
    for row in rows:
        wanted.append(0.0)
        for each in row:
            high, low = raw_scores(model, [some[each].chosen.tolist(), some[each].rejected.tolist()], 4)
            wanted[-1] += float(np.log1p(np.exp(-(high - low - some[each].margin))))
    margins.error("rows", float(np.abs(by_row.numpy() - wanted).max()), most=1e-3)
    margins.error("sum", abs(total.item() - sum(wanted)), most=2e-3)
    assert read.num_labels == sum(map(len, rows)), "a label a pair"


def test_a_planted_preference_is_learned(model: RewardModel, margins: Margins) -> None:
    heldout = pairs(200, 5, prefers_longer=0.0)
    figures = reward_figures(**figures_of(model, heldout), deviation=model.scale.deviation, seed=0)
    margins.effect("accuracy", figures["accuracy"].value - 0.5, least=0.25)
    assert {"accuracy_margin_0", "accuracy_margin_0.333333", "accuracy_margin_0.666667"} <= figures.keys()
    assert sum(each.n for name, each in figures.items() if "margin" in name) == 200
    assert figures["length_excess"].low < 0.1, "no bias was planted"


def test_a_length_bias_is_seen(world: Path, tmp_path: Path, model: RewardModel, margins: Margins) -> None:
    """Labels that prefer what is longer, judged by pairs whose labels do not."""
    biased = trained(world, tmp_path / "run", pairs(600, 0, prefers_longer=1.0), pairs(100, 1, prefers_longer=1.0), 100)
    heldout = pairs(200, 5, prefers_longer=0.0)
    excess = {
        name: reward_figures(**figures_of(each, heldout), deviation=each.scale.deviation, seed=0)["length_excess"]
        for name, each in (("biased", biased), ("fair", model))
    }
    margins.effect("excess", excess["biased"].low - max(0.0, excess["fair"].low), least=0.1)


def test_a_score_does_not_depend_on_what_else_is_scored(model: RewardModel, margins: Margins) -> None:
    answers = [each.chosen.tolist() for each in pairs(40, 6, prefers_longer=0.0)]
    together = model.score(answers)
    alone = np.concatenate([model.score([each]) for each in answers])
    margins.error("scores", float(np.abs(together - alone).max()), most=1e-4)


def test_what_was_saved_scores_the_same(model: RewardModel, world: Path, tmp_path: Path, margins: Margins) -> None:
    model.save(tmp_path, world / "base")
    answers = [each.chosen.tolist() for each in pairs(10, 7, prefers_longer=0.0)]
    opened = RewardModel.open(tmp_path, "one")
    assert opened.scale == model.scale
    margins.error("scores", float(np.abs(opened.score(answers) - model.score(answers)).max()), most=1e-5)
    scores = np.concatenate(
        [model.score([each.chosen.tolist(), each.rejected.tolist()]) for each in pairs(100, 1, prefers_longer=0.0)]
    )
    assert abs(scores.mean()) < 1e-4 and abs(scores.std() - 1) < 1e-4, "the scale is that of the held-out answers"
    with pytest.raises(ArtifactError, match="scores ids of tokenizer one, the policy has other"):
        RewardModel.open(tmp_path, "other")
    (tmp_path / "reward.json").write_text(json.dumps({"mean": 0.0}))
    with pytest.raises(ArtifactError, match=r"reward\.json: cannot be read"):
        RewardModel.open(tmp_path, "one")


def test_scores_that_are_all_alike_are_refused(world: Path, tmp_path: Path) -> None:
    same = [replace(each, rejected=each.chosen) for each in pairs(8, 0, prefers_longer=0.0)]
    with pytest.raises(DataError, match="it tells no answer from another"):
        trained(world, tmp_path / "run", same, same, 1)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 9)), min_size=2, max_size=30))
def test_rank_correlation_is_that_of_scipy(values: list[tuple[int, int]]) -> None:
    from scipy.stats import spearmanr  # noqa: PLC0415 - an oracle

    one, other = np.array(values).T
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        assert spearman(one.astype(float), other) == 0.0
    else:
        assert spearman(one.astype(float), other) == pytest.approx(spearmanr(one, other).statistic, abs=1e-9)


def test_pairs_share_rows(world: Path) -> None:
    some = pairs(50, 0, prefers_longer=0.0)
    rows = PackedPairs(some, order_of(["pairs"] * 50, {}, 0), 128, 4)
    assert rows.padding_share(10) < 0.1
