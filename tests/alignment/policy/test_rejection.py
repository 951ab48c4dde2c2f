"""The best of several answers: which are kept, and that learning them earns more."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from components.alignment import align
from components.alignment.config import AlignConfig, RejectionConfig, ReplayConfig
from components.alignment.policy.learned_reward import grade_of
from components.alignment.policy.rejection import Best, best_of
from components.alignment.policy.rollouts import Earned, Rollout
from components.alignment.policy.verified_reward import VerifiedReward
from components.alignment.reward_models.reward_model import RewardModel
from components.core.artifact import Manifest, sha256_of
from components.inference.engine import Completion
from tests.alignment.stages import ALIGN, RATES
from tests.margins import Margins

READS = ("sft", "preferences", "instructions", "tokens", "plan")
REJECTION = RejectionConfig(
    prompts=24,
    samples=6,
    min_answers=4,
    epochs=6.0,
    rounds=3,
    replay=ReplayConfig(share=0.2, anchor=0.1),
    adamw_matrix=4e-3,
    rates=RATES,
)
CONFIG = ALIGN.model_copy(update={"method": "rejection_sampling", "max_steps": 12, "rejection": REJECTION})


def answer(*ids: int, log_prob: float = -1.0, stop: int | None = 8) -> Completion:
    """An answer of some tokens that are equally likely."""
    whole = len(ids) + (stop is not None)
    return Completion(
        tokens=ids,
        finish_reason="length" if stop is None else "stop",
        stop_id=stop,
        log_probs=np.full(whole, log_prob / whole, np.float32),
    )


def test_the_best_answer_of_all_rounds_is_kept() -> None:
    known: dict[int, Best] = {}
    first = Rollout(
        prompts=[(6, 20, 7), (6, 21, 7), (6, 22, 7)],
        answers=[[answer(30), answer(31, log_prob=-0.5)], [answer(32), answer(33)], [answer(34), answer(35)]],
        rewards=np.array([[1.0, 1.0], [0.0, 0.5], [0.0, 0.0]]),
    )
    best_of(first, [4, 5, 6], 0, known)
    assert {number: each.conversation.ids.tolist() for number, each in known.items()} == {
        4: [6, 20, 7, 31, 8],
        5: [6, 21, 7, 33, 8],
    }, "the more probable of equals; none where nothing was earned"
    assert known[4].conversation.said.tolist() == [False, False, False, True, True]
    second = Rollout(
        prompts=[(6, 21, 7), (6, 20, 7)],
        answers=[[answer(36)], [answer(37, log_prob=-9.0)]],
        rewards=np.array([[0.75], [1.0]]),
    )
    best_of(second, [5, 4], 1, known)
    assert [(known[number].conversation.ids[3], known[number].round) for number in (4, 5)] == [(31, 0), (36, 1)]


def run(world: Path, out: Path, config: AlignConfig = CONFIG) -> Manifest:
    return align.run(config, **{name: world / name for name in READS}, out=out)


@pytest.mark.usefixtures("stages")
def test_what_is_learned_earns_more(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, margins: Margins
) -> None:
    """A reward that a model of this size can reach: an answer that is short."""

    def short(self: VerifiedReward, numbers: Sequence[int], answers: Sequence[Completion]) -> Earned:
        return Earned(values=np.array([1 / (1 + len(each.tokens)) for each in answers]))

    monkeypatch.setattr(VerifiedReward, "__call__", short)
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    figures: dict[str, Any] = run(world, tmp_path / "out").statistics
    assert figures["aligned"] is True, figures.get("reason")
    assert figures["rounds"] == 3
    margins.effect("reward", figures["reward_by_round"][-1] - figures["reward_by_round"][0], least=0.02)
    assert sum(figures["answers_by_round"]) == figures["answers_learned"] >= 4
    history = pl.read_csv(tmp_path / "out" / "history.csv")
    assert history["round"].unique().sort().to_list() == [1, 2, 3]

    decided = figures["decided"] | {"method": "rejection_sampling"}
    again = AlignConfig.model_validate_json(json.dumps(CONFIG.model_dump(mode="json") | decided))
    replayed = run(world, tmp_path / "again", again)
    weights = [(each / "model.safetensors").read_bytes() for each in (tmp_path / "out", tmp_path / "again")]
    assert weights[0] == weights[1], "what was decided gives the same weights"
    assert replayed.statistics["decided"] == figures["decided"]


@pytest.mark.usefixtures("stages")
def test_answers_that_earn_nothing_pass_the_model_on(world: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"rejection": REJECTION.model_copy(update={"rounds": 1, "samples": 1})})
    manifest = run(world, tmp_path / "out", config)
    assert manifest.statistics["aligned"] is False
    assert "prompts have an answer that earned anything" in manifest.statistics["reason"]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (world / "sft" / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("stages")
def test_a_policy_learns_in_the_stage(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(self: VerifiedReward, numbers: Sequence[int], answers: Sequence[Completion]) -> Earned:
        return Earned(values=np.array([float(len(each.tokens) < 8) for each in answers]))

    monkeypatch.setattr(VerifiedReward, "__call__", short)
    policy = ALIGN.policy.model_copy(update={"prompts": 4, "group": 4, "max_new_tokens": 24})
    config = ALIGN.model_copy(update={"method": "policy", "max_steps": 3, "policy": policy})
    figures = run(world, tmp_path / "out", config).statistics
    assert figures["aligned"] is True and figures["steps"] == 3 and figures["method"] == "policy"
    assert pl.read_csv(tmp_path / "out" / "history.csv").height == 3


@pytest.mark.usefixtures("stages")
def test_a_reward_model_pays_the_policy(world: Path, tmp_path: Path) -> None:
    policy = ALIGN.policy.model_copy(update={"prompts": 4, "group": 4, "max_new_tokens": 24, "reward": "model"})
    config = ALIGN.model_copy(update={"method": "policy", "max_steps": 2, "policy": policy})
    figures = run(world, tmp_path / "out", config).statistics
    assert figures["aligned"] is True and figures["steps"] == 2
    assert 0 <= figures["reward_model"]["accuracy"]["value"] <= 1 and figures["reward_model"]["steps"] > 0
    opened = RewardModel.open(tmp_path / "out" / "reward", sha256_of(world / "sft" / "tokenizer.json"))
    scores = opened.score([[5, 6, 7], [5, 6, 7, 8, 9]])
    assert np.isfinite(scores).all() and scores[0] != scores[1]


@pytest.mark.parametrize(
    ("row", "grade"),
    [
        ({"chosen_tier": 4, "rejected_tier": 3, "margin": 0.1}, 4.0),
        ({"chosen_tier": 2, "rejected_tier": 0, "margin": 0.1}, 2.0),
        ({"chosen_tier": 2, "rejected_tier": 2, "margin": 0.75}, 3.0),
        ({"chosen_tier": 2, "rejected_tier": 2, "margin": 0.0}, 1.0),
    ],
)
def test_the_grade_of_a_pair_is_what_decided_it(row: dict[str, float], grade: float) -> None:
    assert grade_of(row) == grade
