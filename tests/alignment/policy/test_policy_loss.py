"""The loss of a step against plain NumPy, and that of groups against TRL's own code."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel
from trl.trainer.grpo_trainer import GRPOTrainer, add_fused_lm_head

from components.alignment.examples.chat import Conversation
from components.alignment.objectives.label_figures import label_figures, token_nats_of
from components.alignment.policy.policy_loss import Clip, PolicyLoss, add_critic, take_critic
from components.alignment.policy.rollouts import rows_of
from components.training.engine.batches.batch import IGNORED, Batch
from components.training.engine.model import loss as engine_loss
from components.training.engine.model.architectures import build
from components.training.engine.model.forward import Tensors
from tests.margins import Margins
from tests.training.runs import SHAPE

pytestmark = pytest.mark.numeric
COLUMNS = ("behaviour", "advantages", "reference", "returns", "values")
CLIP = Clip(low=0.1, high=0.3, kl=0.2, value=0.2, value_weight=0.5)


@pytest.fixture
def model() -> PreTrainedModel:
    """Moved away from where it begins: some of its matrices are 0 there, and so are gradients behind them."""
    model = build(SHAPE, 0, 0).float().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def answers(number: int = 6) -> list[Conversation]:
    random = np.random.default_rng(0)
    conversations = []
    for _ in range(number):
        prompt, answer = random.integers(2, 8, size=2)
        ids = random.integers(5, 128, size=prompt + answer).astype(np.int32)
        said = np.arange(len(ids)) >= prompt
        columns = {name: random.normal(size=len(ids)).astype(np.float32) for name in COLUMNS}
        for name in ("behaviour", "reference"):
            columns[name] = -5 + 0.3 * columns[name]
        conversations.append(Conversation(ids=ids, said=said, columns=columns))
    return conversations


def tensors_of(batch: Batch) -> dict[str, torch.Tensor]:
    arrays = {"inputs": batch.inputs, "labels": batch.labels, "positions": batch.positions, **batch.columns}
    return {name: torch.from_numpy(np.array(each)) for name, each in arrays.items()}


def log_probs(model: PreTrainedModel, batch: Batch) -> np.ndarray:
    """Of each label, shape (B, T), from the model's own logits."""
    tensors = tensors_of(batch)
    with torch.no_grad():
        logits = model(input_ids=tensors["inputs"], position_ids=tensors["positions"]).logits
    every = logits.log_softmax(-1).double().numpy()
    return np.take_along_axis(every, np.maximum(batch.labels, 0)[:, :, None], 2)[:, :, 0]


def test_a_step_is_that_of_numpy(model: PreTrainedModel, margins: Margins) -> None:
    add_critic(model)
    with torch.no_grad():
        model.critic.weight.normal_(generator=torch.Generator().manual_seed(0))
    batch = rows_of(answers(), 32, 4)
    loss = PolicyLoss(model, CLIP)
    total, _, by_row = loss(**tensors_of(batch))

    scored = batch.labels != IGNORED
    columns = {name: each.astype(np.float64) for name, each in batch.columns.items()}
    likely = log_probs(model, batch)
    ratio = np.exp(likely - columns["behaviour"])
    gain = columns["advantages"]
    policy = -np.minimum(ratio * gain, np.clip(ratio, 0.9, 1.3) * gain)
    apart = columns["reference"] - likely
    pull = np.exp(apart) - apart - 1
    tensors = tensors_of(batch)
    with torch.no_grad():
        hidden = model.model(input_ids=tensors["inputs"], position_ids=tensors["positions"]).last_hidden_state
        said = model.critic(hidden)[:, :, 0].double().numpy()
    near = columns["values"] + np.clip(said - columns["values"], -0.2, 0.2)
    errors = np.maximum((said - columns["returns"]) ** 2, (near - columns["returns"]) ** 2)
    wanted = (policy + 0.2 * pull + 0.25 * errors)[scored].sum()
    margins.error("loss", abs(total.item() - wanted) / abs(wanted), most=1e-4)
    np.testing.assert_allclose(by_row.numpy(), np.where(scored, policy, 0).sum(1), rtol=1e-3, atol=1e-4)
    assert loss.figures.tokens == scored.sum()
    assert loss.figures.clipped == (np.clip(ratio, 0.9, 1.3) * gain < ratio * gain)[scored].sum() > 0
    margins.error("gap", abs(loss.figures.ratio_gap - np.abs(likely - columns["behaviour"])[scored].max()), most=1e-3)
    take_critic(model)
    assert "critic" not in dict(model.named_modules())


def test_the_gradient_at_the_sampling_policy_is_that_of_reinforce(model: PreTrainedModel, margins: Margins) -> None:
    """d/dw of -A p / p_old is -A d/dw ln p where p is p_old."""
    batch = rows_of(answers(), 32, 4)
    batch.columns["behaviour"][:] = -token_nats_of(model, batch)
    tensors = {name: each for name, each in tensors_of(batch).items() if name not in ("reference", "returns", "values")}
    PolicyLoss(model, Clip())(**tensors)[0].backward()
    ours = [each.grad.clone() for each in model.parameters() if each.grad is not None]
    model.zero_grad()
    figures = label_figures(model, Tensors(**{name: tensors[name] for name in ("inputs", "labels", "positions")}))
    (-(figures.log_probs * figures.chosen(tensors["advantages"])).sum()).backward()
    theirs = [each.grad for each in model.parameters() if each.grad is not None]
    for one, other in zip(ours, theirs, strict=True):
        margins.error("gradient", ((one - other).norm() / other.norm()).item(), most=1e-3)


def test_groups_are_learned_as_trl_learns_them(model: PreTrainedModel, margins: Margins) -> None:
    """The same answers, one a row, through TRL's own loss of tokens over the batch (`bnpo`)."""
    random = np.random.default_rng(1)
    prompt, size, answer = 5, 6, 7
    conversations = []
    for _ in range(size):
        ids = random.integers(5, 128, size=prompt + answer).astype(np.int32)
        columns = {
            "behaviour": (-5 + random.normal(size=len(ids))).astype(np.float32),
            "reference": (-5 + random.normal(size=len(ids))).astype(np.float32),
            "advantages": np.full(len(ids), random.normal(), np.float32),
        }
        conversations.append(Conversation(ids=ids, said=np.arange(len(ids)) >= prompt, columns=columns))
    batch = rows_of(conversations, prompt + answer - 1, 4)
    assert len(batch) == size
    total, _, _ = PolicyLoss(model, Clip(low=0.2, high=0.28, kl=0.04))(**tensors_of(batch))
    total = total / batch.num_labels
    total.backward()
    ours = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()

    order = [int(np.flatnonzero([(each.ids[:-1] == row).all() for each in conversations])[0]) for row in batch.inputs]
    rows = [conversations[each] for each in order]
    ids = torch.from_numpy(np.stack([each.ids for each in rows]).astype(np.int64))
    columns = {name: torch.from_numpy(np.stack([each.columns[name] for each in rows])) for name in rows[0].columns}
    theirs = trl_loss(
        model,
        {
            "prompt_ids": ids[:, :prompt],
            "prompt_mask": torch.ones(size, prompt, dtype=torch.long),
            "completion_ids": ids[:, prompt:],
            "completion_mask": torch.ones(size, answer, dtype=torch.long),
            "advantages": columns["advantages"][:, -1],
            "old_per_token_logps": columns["behaviour"][:, prompt:],
            "ref_per_token_logps": columns["reference"][:, prompt:],
        },
    )
    margins.error("loss", abs((total - theirs).item()), most=1e-4)
    theirs.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            margins.error(name, float((ours[name] - parameter.grad).norm() / parameter.grad.norm()), most=1e-3)


def trl_loss(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """GRPOTrainer's own `_compute_loss`, on a trainer that has what that reads and nothing else."""
    trainer: Any = GRPOTrainer.__new__(GRPOTrainer)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    metrics: Any = {"train": _Appended()}
    for name, value in {
        "temperature": 1.0,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": "token",
        "beta": 0.04,
        "loss_type": "bnpo",
        "epsilon_low": 0.2,
        "epsilon_high": 0.28,
        "use_vllm": False,
        "aux_loss_enabled": False,
        "args": SimpleNamespace(delta=None, use_bias_correction_kl=False, use_liger_kernel=False),
        "model": SimpleNamespace(training=True),
        "model_kwarg_keys": set(),
        "current_gradient_accumulation_steps": 1,
        "accelerator": Accelerator(cpu=True),
        "_metrics": metrics,
        "_entropy_bonus_enabled": False,
        "use_bias_correction_kl": False,
    }.items():
        setattr(trainer, name, value)
    loss: torch.Tensor = trainer._compute_loss(model, inputs)
    return loss


class _Appended(dict[str, list[float]]):
    def __missing__(self, name: str) -> list[float]:
        return self.setdefault(name, [])


def test_logits_in_pieces_change_nothing(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, margins: Margins
) -> None:
    tensors = tensors_of(rows_of(answers(), 32, 4))
    tensors = {name: each for name, each in tensors.items() if name not in ("returns", "values")}

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        PolicyLoss(model, CLIP)(**tensors)[0].backward()
        return [each.grad.clone() for each in model.parameters() if each.grad is not None]

    whole = gradients()
    monkeypatch.setitem(engine_loss.LOGITS_BYTES, "cpu", 3 * 4 * 128)
    for one, other in zip(whole, gradients(), strict=True):
        margins.error("gradient", float((one - other).norm() / one.norm()), most=1e-4)
