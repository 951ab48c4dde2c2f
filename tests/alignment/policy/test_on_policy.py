"""The on-policy loop on tasks whose best reward is known, with the real engine; and each planted fault, caught."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from components.alignment.objectives.engine_tuning import Tuned
from components.alignment.objectives.tuning import Steps
from components.alignment.policy import on_policy
from components.alignment.policy.on_policy import Plan, PolicyFaultError, optimize
from components.alignment.policy.policy_loss import Clip
from components.alignment.policy.rollouts import Earned
from components.core.errors import DataError
from components.core.events import Events
from components.deadline.budget import Budget
from components.inference.ctranslate2_engine import CTranslate2Engine
from components.inference.engine import Completion, Sampling
from components.tokens.encoding.special import OURS, SpecialTokens
from components.training.engine.model.architectures import build
from components.training.engine.model.shape import shape_of
from components.training.engine.schedule import Schedule
from components.training.engine.trainer import Recipe
from tests.margins import Margins
from tests.training.runs import RATES

pytestmark = pytest.mark.numeric
Values = Callable[[Sequence[int], Sequence[Completion]], NDArray[np.float64]]
SHAPE = shape_of(
    architecture="qwen3",
    vocabulary_size=32,
    context=32,
    layers=1,
    width=32,
    head_width=16,
    queries_per_key_value=2,
    rope_theta=10_000.0,
    tied=False,
)
PROMPTS = [[6, 16 + number, 7] for number in range(4)]
RECIPE = Recipe(
    precision="float32",
    compiled=False,
    micro_batch_samples=64,
    rates=replace(
        RATES, optimizer="adamw", adamw_matrix=0.004, embedding=0.004, output=0.004, norm=0.004, betas=(0.9, 0.95)
    ),
    report_every_steps=1000,
    validate_every_steps=1000,
    checkpoint_seconds=1000.0,
)
PLAN = Plan(
    estimator="group",
    clip=Clip(),
    prompts=4,
    group=16,
    updates=1,
    row_tokens=32,
    max_new_tokens=3,
    temperature=1.0,
    seed=0,
    max_dead=30,
)


def bandit(numbers: Sequence[int], answers: Sequence[Completion]) -> NDArray[np.float64]:
    """The arm is the only token of an answer: one of eight earns 1, others less the farther they are from it."""
    return np.array([1 - abs(each.tokens[0] - 23) / 6 if len(each.tokens) == 1 else 0.0 for each in answers])


def sequence(numbers: Sequence[int], answers: Sequence[Completion]) -> NDArray[np.float64]:
    """Two tokens in their order: a part for the length, and one for each in its place."""
    wanted = (23, 26)
    return np.array(
        [
            0.2 + 0.4 * sum(one == other for one, other in zip(each.tokens, wanted, strict=True))
            if len(each.tokens) == 2
            else 0.0
            for each in answers
        ]
    )


def tuned_model() -> PreTrainedModel:
    """A policy as fine-tuning leaves one: it answers with one token or two of eight, drawn evenly, and ends."""
    model = build(SHAPE, 0, 0).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    random = np.random.default_rng(0)
    for _ in range(60):
        answers = random.integers(20, 28, size=(128, 2))
        answers[::2, 1] = OURS.end
        prompts = np.array(PROMPTS)[random.integers(0, 4, size=128)]
        ids = torch.from_numpy(np.concatenate([prompts, answers, np.full((128, 1), OURS.end)], axis=1))
        logits = model(input_ids=ids[:, :-1]).logits[:, 2:]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 3:].flatten()).backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def tuned() -> dict[str, torch.Tensor]:
    """Its weights, made once."""
    return tuned_model().state_dict()


@pytest.fixture
def model(tuned: dict[str, torch.Tensor]) -> PreTrainedModel:
    """A policy of its own for each test."""
    model = build(SHAPE, 0, 0).float()
    model.load_state_dict(tuned)
    return model


class Recorded(Events):
    """Events, and their figures by name."""

    def __init__(self) -> None:
        super().__init__("test")
        self.figures: dict[str, list[float]] = {}

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """See Events.metrics."""
        for name, value in values.items():
            self.figures.setdefault(name, []).append(value)


def learn(
    model: PreTrainedModel,
    tmp_path: Path,
    plan: Plan,
    reward: Values,
    steps: int,
    engine: type[CTranslate2Engine] = CTranslate2Engine,
    special: SpecialTokens = OURS,
    recipe: Recipe = RECIPE,
) -> tuple[Tuned, dict[str, list[float]]]:
    """Some steps with the real engine."""

    def earned(numbers: Sequence[int], answers: Sequence[Completion]) -> Earned:
        return Earned(values=reward(numbers, answers))

    model.save_pretrained(tmp_path / "model")
    events = Recorded()
    opened = engine(tmp_path / "model", num_threads=1, cache=tmp_path / "engines")
    (tmp_path / "run").mkdir(exist_ok=True)
    counted = Steps(
        num_steps=steps,
        schedule=Schedule(final_share=0.3, decisions=[(0, steps)]),
        budget=Budget(seconds=None, started=0.0),
    )
    tuned = optimize(model, plan, recipe, opened, PROMPTS, earned, special, counted, tmp_path / "run", events)
    opened.close()
    return tuned, events.figures


@pytest.mark.parametrize("estimator", ["group", "leave_one_out", "reinforce", "gae"])
def test_the_best_arm_is_found(model: PreTrainedModel, tmp_path: Path, margins: Margins, estimator: Any) -> None:
    updates = 2 if estimator == "gae" else 1
    plan = replace(PLAN, estimator=estimator, updates=updates)
    _, figures = learn(model, tmp_path, plan, bandit, 30 * updates)
    before, after = (float(np.mean(part)) for part in (figures["reward"][:2], figures["reward"][-3:]))
    margins.effect("reward", after - before, least=0.2)


@pytest.mark.drill
@pytest.mark.parametrize("estimator", ["group", "gae"])
@pytest.mark.parametrize(("reward", "optimum"), [(bandit, 1.0), (sequence, 1.0)])
def test_95_percent_of_the_optimum_is_reached(
    model: PreTrainedModel, tmp_path: Path, reward: Values, optimum: float, estimator: Any
) -> None:
    plan = replace(PLAN, estimator=estimator, group=32, updates=2 if estimator == "gae" else 1)
    _, figures = learn(model, tmp_path, plan, reward, 100 * plan.updates)
    assert np.mean(figures["reward"][-5:]) >= 0.95


def test_the_pull_keeps_the_policy_near(model: PreTrainedModel, tmp_path: Path) -> None:
    free = learn(deepcopy(model), tmp_path / "free", PLAN, bandit, 15)[1]
    held = learn(model, tmp_path / "held", replace(PLAN, clip=Clip(kl=3.0)), bandit, 15)[1]
    assert held["reward"][0] == free["reward"][0]
    assert held["kl"][0] == pytest.approx(0.0, abs=1e-5)
    assert held["entropy"][-1] > free["entropy"][-1]


class Stale(CTranslate2Engine):
    """Says that it has new weights, and keeps the old ones."""

    def load(self, weights: Any, version: str) -> None:
        """See Engine.load."""
        self.version = version


class Forgetful(CTranslate2Engine):
    """Takes new weights and says nothing."""

    def load(self, weights: Any, version: str) -> None:
        """See Engine.load."""


class Hotter(CTranslate2Engine):
    """Samples at another temperature than it was asked for."""

    def generate(self, prompts: Any, sampling: Sampling, *, stop_ids: Sequence[int]) -> list[list[Completion]]:
        """See Engine.generate."""
        return super().generate(prompts, replace(sampling, temperature=1.6), stop_ids=stop_ids)


class Narrow(CTranslate2Engine):
    """Leaves improbable tokens out."""

    def generate(self, prompts: Any, sampling: Sampling, *, stop_ids: Sequence[int]) -> list[list[Completion]]:
        """See Engine.generate."""
        return super().generate(prompts, replace(sampling, top_p=0.5), stop_ids=stop_ids)


def sharper(model: PreTrainedModel) -> PreTrainedModel:
    """A policy that has preferences: at first every token is as likely as any other, at every temperature."""
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(0, 0.4, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize(
    ("engine", "message", "step"),
    [
        (Stale, "differ by .* nats", 1),
        (Forgetful, "the engine has weights of its directory", 0),
        (Hotter, "less probable than such samples are", 0),
        (Narrow, "more probable than such samples are", 0),
    ],
)
def test_a_sampler_that_is_not_the_policy_ends_the_run(
    model: PreTrainedModel, tmp_path: Path, engine: type[CTranslate2Engine], message: str, step: int
) -> None:
    with pytest.raises(PolicyFaultError, match=f"step {step}: .*{message}"):
        learn(sharper(model), tmp_path, replace(PLAN, group=64), bandit, 4, engine)


def test_a_right_sampler_of_a_sharp_policy_is_no_fault(model: PreTrainedModel, tmp_path: Path) -> None:
    assert learn(sharper(model), tmp_path, replace(PLAN, group=64), bandit, 8)[0].steps == 8


def test_an_optimizer_without_parameters_ends_the_run(model: PreTrainedModel, tmp_path: Path) -> None:
    still = replace(RECIPE, rates=replace(RECIPE.rates, adamw_matrix=0.0, embedding=0.0, output=0.0, norm=0.0))
    with pytest.raises(PolicyFaultError, match="step 0: the update has moved no weight"):
        learn(model, tmp_path, PLAN, bandit, 3, recipe=still)


def test_a_pad_among_the_stops_is_refused(model: PreTrainedModel, tmp_path: Path) -> None:
    special = SpecialTokens(end_of_text=OURS.end_of_text, chat=OURS.chat)
    with pytest.raises(DataError, match="fills rows and ends answers"):
        learn(model, tmp_path, PLAN, bandit, 1, special=special)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda numbers, answers: np.full(len(answers), np.nan), "the reward of an answer is nan"),
        (lambda numbers, answers: np.full(len(answers), np.inf), "the reward of an answer is inf"),
        (lambda numbers, answers: np.full(len(answers), 0.5), "3 rollouts in a row have no prompt"),
    ],
)
def test_rewards_that_teach_nothing_are_refused(
    model: PreTrainedModel, tmp_path: Path, reward: Values, message: str
) -> None:
    plan = replace(PLAN, estimator="leave_one_out", max_dead=2, max_new_tokens=20, row_tokens=64)
    with pytest.raises(DataError, match=message):
        learn(model, tmp_path, plan, reward, 6)


def test_a_prompt_longer_than_a_row_is_refused(model: PreTrainedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not fit into a row of 32"):
        learn(model, tmp_path, replace(PLAN, max_new_tokens=31), bandit, 1)


def test_cut_answers_earn_nothing(model: PreTrainedModel, tmp_path: Path) -> None:
    def long(numbers: Sequence[int], answers: Sequence[Completion]) -> NDArray[np.float64]:
        return np.array([float(len(each.ids)) for each in answers])

    _, figures = learn(model, tmp_path, replace(PLAN, max_new_tokens=2), long, 1)
    assert 0.2 < figures["cut_answers"][0] < 0.8
    assert figures["reward"][0] == pytest.approx(2 * (1 - figures["cut_answers"][0]))


class KilledError(Exception):
    """The process ends here."""


@pytest.mark.parametrize("kill_at", [1, 2, 5])
@pytest.mark.parametrize("estimator", ["group", "gae"])
def test_a_run_that_was_broken_off_ends_with_the_same_weights(tmp_path: Path, estimator: Any, kill_at: int) -> None:
    """Between two updates of one rollout, too, whose rows are read again."""
    recipe = replace(RECIPE, checkpoint_seconds=0.0)
    plan = replace(PLAN, estimator=estimator, updates=2)
    whole = build(SHAPE, 0, 0).float()
    learn(whole, tmp_path / "whole", plan, bandit, 6, recipe=recipe)

    def dying(count: list[int]) -> Callable[[int], Any]:
        call = on_policy.OnPolicy.__call__

        def batch(self: Any, step: int) -> Any:
            if step == kill_at and not count:
                count.append(step)
                raise KilledError
            return call(self, step)

        return batch

    broken = build(SHAPE, 0, 0).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_policy.OnPolicy, "__call__", dying([]))
        with pytest.raises(KilledError):
            learn(broken, tmp_path / "broken", plan, bandit, 6, recipe=recipe)
    again = build(SHAPE, 0, 0).float()
    learn(again, tmp_path / "broken", plan, bandit, 6, recipe=recipe)
    for (name, one), other in zip(whole.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other), name
