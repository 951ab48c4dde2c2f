"""The fused loss against the plain one, and what it never holds."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from components.training.engine.batches.batch import IGNORED
from components.training.engine.model.loss import FusedLoss, token_nats
from tests.margins import Margins

pytestmark = pytest.mark.numeric

N, D, V = 60, 6, 40
WHOLE = 1 << 30


def drawn(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden, weight and labels, a third of which are ignored."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(V, D, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(V, (N,), generator=generator)
    labels[::3] = IGNORED
    return hidden, weight, labels


fused: Any = FusedLoss.apply  # torch gives it no types


def plain(hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float) -> Tensor:
    """What the fused loss is to equal, by its definition."""
    log_z = torch.logsumexp(functional.linear(hidden, weight).float(), dim=1)[labels != IGNORED]
    return token_nats(hidden[None], weight, labels[None]).sum() + z_loss * (log_z**2).sum()


def relative(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("limit_rows", [WHOLE, 7, 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 7e-3)])
def test_fused_loss_and_gradients_equal_the_plain_ones(
    dtype: torch.dtype, tolerance: float, limit_rows: int, z_loss: float, margins: Margins
) -> None:
    hidden, weight, labels = drawn(dtype)
    wanted = plain(hidden, weight, labels, z_loss)
    of_hidden, of_weight = torch.autograd.grad(wanted / 7, (hidden, weight))
    limit = limit_rows * V * weight.element_size()
    total, nats = fused(hidden, weight, labels, z_loss, limit)
    found = torch.autograd.grad(total / 7, (hidden, weight))
    margins.error("loss", relative(total.detach(), wanted.detach()), most=2e-6)
    margins.close("nats", nats, token_nats(hidden[None], weight, labels[None])[0], rtol=2e-6, atol=2e-6)
    assert not nats.requires_grad
    for name, gradient, wanted_gradient in zip(("hidden", "weight"), found, (of_hidden, of_weight), strict=True):
        margins.error(name, relative(gradient, wanted_gradient), most=tolerance)
    assert found[1].dtype == dtype


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the rows of the largest tensor as wide as the vocabulary."""

    rows = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and found.ndim == 2 and found.shape[1] == V:
            self.rows = max(self.rows, found.shape[0])
        return found


def test_no_more_logits_than_the_limit_exist_at_once() -> None:
    hidden, weight, labels = drawn(torch.float32)
    with Largest() as seen:  # type: ignore[no-untyped-call]
        fused(hidden, weight, labels, 0.0, 8 * V * 4)[0].backward()
    assert seen.rows == 8
    with Largest() as seen:  # type: ignore[no-untyped-call]
        token_nats(hidden[None], weight, labels[None]).sum().backward()  # type: ignore[no-untyped-call]
    assert seen.rows == N
