"""Products in 8 bits against their definition, and runs that use them against runs that do not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from components.training.engine.checkpoint import Checkpoint, name_of
from components.training.engine.figures import Report
from components.training.engine.model import float8
from components.training.engine.model.architectures import build
from components.training.engine.model.roles import roles_of
from tests.margins import Margins
from tests.training.runs import SHAPE, recipe, run_small, same

pytestmark = pytest.mark.numeric

PLAIN = recipe(precision="bfloat16")
EIGHT = replace(PLAIN, accelerators=("float8",))


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def by_definition(values: Tensor, dtype: torch.dtype) -> Tensor:
    """What 8 bits leave of numbers whose largest is scaled to the type's largest, in float64."""
    scale = torch.finfo(dtype).max / values.abs().max().double()
    return (values.double() * scale).float().to(dtype).double() / scale


def test_the_three_products_are_those_of_rounded_operands_and_near_the_plain_ones(margins: Margins) -> None:
    drawn = torch.Generator().manual_seed(0)
    inputs, weight, gradient = (
        (torch.randn(*shape, generator=drawn) * size).bfloat16()
        for shape, size in (((64, 96), 30.0), ((48, 96), 0.02), ((64, 48), 1e-6))  # apart by more than 8 bits hold
    )
    layer = nn.Linear(96, 48, bias=True, dtype=torch.bfloat16)
    layer.weight.data.copy_(weight)
    layer.bias.data.fill_(0.5)
    given = inputs.clone().view(4, 16, 96).requires_grad_()
    layer.__class__ = float8.Float8Linear
    out = layer(given)
    out.backward(gradient.view(4, 16, 48))
    eight = [by_definition(each, torch.float8_e4m3fn) for each in (inputs, weight)]
    eight.append(by_definition(gradient, torch.float8_e5m2))
    plain = [inputs.double(), weight.double(), gradient.double()]
    assert given.grad is not None
    assert layer.weight.grad is not None
    found = [out.detach().view(64, 48) - 0.5, given.grad.view(64, 96), layer.weight.grad]
    for name, product, (left, right, slope), near in zip(
        ("output", "inputs", "weight") * 2,
        found * 2,
        [eight] * 3 + [plain] * 3,
        [0.008] * 3 + [0.065, 0.1, 0.1],
        strict=True,
    ):
        wanted = {"output": left @ right.mT, "inputs": slope @ right, "weight": slope.mT @ left}[name]
        margins.error(name, relative(product, wanted), most=near)
    margins.effect("rounding to 8 bits", relative(found[0], plain[0] @ plain[1].mT), least=0.01)
    torch.testing.assert_close(layer.bias.grad, gradient.sum(dim=0))


def test_without_gradients_or_with_odd_rows_a_layer_multiplies_plainly() -> None:
    layer = nn.Linear(32, 16, dtype=torch.bfloat16)
    layer.__class__ = float8.Float8Linear
    inputs = torch.randn(3, 16, 32, dtype=torch.bfloat16)
    plain = functional.linear(inputs, layer.weight, layer.bias)
    assert not torch.equal(layer(inputs), plain)
    assert torch.equal(layer(inputs[:, :5]), functional.linear(inputs[:, :5], layer.weight, layer.bias))
    with torch.no_grad():
        assert torch.equal(layer(inputs), plain)


def test_layers_of_blocks_are_taken_and_embeddings_left() -> None:
    model, before = build(SHAPE, 0, 0), roles_of(build(SHAPE, 0, 0))
    parameters = dict(model.named_parameters())
    taken = float8.swap(model)
    assert {f"{name}.weight" for name in taken} == {name for name, role in before.items() if role == "matrix"}
    assert all(each is parameters[name] for name, each in model.named_parameters())
    assert roles_of(model) == before
    with pytest.raises(ValueError, match="found no linear layer in a block of Linear"):
        float8.swap(nn.Linear(17, 16))


def test_a_run_stays_near_the_plain_one_resumes_bit_for_bit_and_leaves_the_same_checkpoint(
    tmp_path: Path, margins: Margins
) -> None:
    plain, _ = run_small(tmp_path / "plain", how=PLAIN)
    eight, weights = run_small(tmp_path / "eight", how=EIGHT)
    ends = [outcome.history[-1]["loss"] for outcome in (plain, eight)]
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[1] != ends[0]
    margins.error("loss in 8 bits", abs(ends[1] / ends[0] - 1), most=0.02)
    build(SHAPE, 0, 0).load_state_dict(weights)  # of a model that knows nothing of 8 bits
    files = [set(Checkpoint(tmp_path / name / name_of(20)).weights()) for name in ("plain", "eight")]
    assert files[0] == files[1]

    def stop(row: Report) -> None:
        if row.step == 10:
            raise InterruptedError

    often = replace(EIGHT, checkpoint_seconds=0.0)
    with pytest.raises(InterruptedError):
        run_small(tmp_path / "broken", how=often, report=stop)
    assert same(run_small(tmp_path / "broken", how=often)[1], weights)
