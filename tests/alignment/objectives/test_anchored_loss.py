"""Replay that is held to what the base says: against plain torch, in float64."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from components.alignment.objectives.anchored_loss import AnchoredLoss
from components.training.engine.batches.batch import IGNORED
from components.training.engine.model import loss as engine_loss
from components.training.engine.model.architectures import build
from components.training.engine.model.loss import Loss
from tests.margins import Margins
from tests.training.runs import SHAPE

pytestmark = pytest.mark.numeric


def moved(seed: int) -> PreTrainedModel:
    """A model away from where it begins, where some of its matrices are 0."""
    model = build(SHAPE, 0, 0).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    """Four rows of which the last two are anchored; a third of the positions have no label."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 128, size=(4, 16))
    labels[random.random(labels.shape) < 0.3] = IGNORED
    return {
        "inputs": torch.from_numpy(random.integers(0, 128, size=(4, 16))),
        "labels": torch.from_numpy(labels),
        "positions": torch.arange(16).repeat(4, 1),
        "anchored": torch.tensor([False, False, True, True]),
    }


def test_the_sum_and_its_gradient_are_those_of_plain_torch(tensors: dict[str, torch.Tensor], margins: Margins) -> None:
    model, base = moved(1), moved(2)
    total, _, by_row = AnchoredLoss(model, base, 3.0)(**tensors)
    total.backward()
    ours = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()

    shown = {"input_ids": tensors["inputs"], "position_ids": tensors["positions"]}
    log_probs = model(**shown).logits.log_softmax(-1)
    with torch.no_grad():
        wanted = base(**shown).logits.log_softmax(-1)
    scored, anchored = tensors["labels"] != IGNORED, tensors["anchored"][:, None]
    answers = -log_probs.gather(2, tensors["labels"].clamp(min=0)[:, :, None])[:, :, 0]
    apart = (wanted.exp() * (wanted - log_probs)).sum(-1)
    plain = (answers * (scored & ~anchored)).sum() + 3.0 * (apart * (scored & anchored)).sum()
    plain.backward()
    margins.error("sum", abs((total - plain).item() / plain.item()), most=1e-4)
    rows = torch.where(anchored, apart, answers).mul(scored).sum(1).detach()
    margins.close("rows", by_row, rows, rtol=1e-3, atol=1e-4)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        margins.error(name, ((ours[name] - parameter.grad).norm() / parameter.grad.norm()).item(), most=2e-3)
    assert all(each.grad is None for each in base.parameters())


def test_where_nothing_has_changed_replay_does_not_move_the_model(
    tensors: dict[str, torch.Tensor], margins: Margins
) -> None:
    """Where tokens are the targets it does, however well the model knows them."""
    model = moved(1)
    every = tensors | {"anchored": torch.ones(4, dtype=torch.bool)}
    total, _, _ = AnchoredLoss(model, deepcopy(model), 1.0)(**every)
    total.backward()
    held = max(float(each.grad.norm()) for each in model.parameters() if each.grad is not None)
    model.zero_grad()
    plain = {name: each for name, each in tensors.items() if name != "anchored"}
    Loss(model)(**plain)[0].backward()
    pulled = max(float(each.grad.norm()) for each in model.parameters() if each.grad is not None)
    margins.error("gradient", held / pulled, most=1e-4)


def test_without_anchored_rows_it_is_the_loss_of_a_language_model(
    tensors: dict[str, torch.Tensor], margins: Margins
) -> None:
    model = moved(1)
    none = tensors | {"anchored": torch.zeros(4, dtype=torch.bool)}
    plain = {name: each for name, each in tensors.items() if name != "anchored"}
    total, _, by_row = AnchoredLoss(model, moved(2), 1.0)(**none)
    wanted, _, rows = Loss(model)(**plain)
    margins.error("sum", abs((total - wanted).item()), most=1e-3)
    margins.close("rows", by_row, rows, rtol=1e-4, atol=1e-4)


def test_logits_in_pieces_change_nothing(
    tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, margins: Margins
) -> None:
    model, base = moved(1), moved(2)
    gradients = []
    for limit in (engine_loss.LOGITS_BYTES["cpu"], 5 * 2 * 4 * 128):
        monkeypatch.setitem(engine_loss.LOGITS_BYTES, "cpu", limit)
        model.zero_grad()
        AnchoredLoss(model, base, 1.0)(**tensors)[0].backward()
        gradients.append(torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None]))
    margins.error("gradient", ((gradients[0] - gradients[1]).norm() / gradients[0].norm()).item(), most=1e-4)
