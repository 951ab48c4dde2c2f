"""Who may use which accelerator, what graphs and Liger's rotation need of a trainer, and which ones are taken."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers.models.qwen3 import modeling_qwen3

from components.training.engine.devices import accelerator_trial as comparison
from components.training.engine.devices.accelerator_trial import Comparison, Setting, compare, pick
from components.training.engine.devices.accelerators import AcceleratorError, objection
from components.training.engine.model import float8, liger
from components.training.engine.model.architectures import build
from components.training.engine.trainer import Trainer, World
from components.training.run import worker
from tests.margins import Margins
from tests.training.runs import SHAPE, batches_for, recipe

pytestmark = pytest.mark.numeric

HERE = {"architecture": "qwen3", "device": "cpu", "precision": "bfloat16", "compiled": True}
SETTING = Setting(shape=SHAPE, precision="bfloat16", compiled=False, samples=8, sequence_length=32, device="cpu")


def test_what_cannot_be_used_says_what_was_found_and_what_to_do() -> None:
    assert objection("float8", **HERE) is None
    assert objection("float8", **HERE | {"precision": "float32"}) == (
        "float8: found precision float32, needed bfloat16; train in bfloat16, or take float8 out of the accelerators"
    )
    for name in ("liger", "graphs"):
        with pytest.raises(AcceleratorError, match=f"^{name}: found device cpu, needed cuda; train on a GPU, or take"):
            Trainer(build(SHAPE, 0, 0), replace(recipe(), accelerators=(name,)), World(), print)
    assert worker.end_of(AcceleratorError("why")) == "why", "a restart would end the same way"
    cuda = HERE | {"device": "cuda"}
    assert "found an eager model" in str(objection("graphs", **cuda | {"compiled": False}))
    assert "found 8 workers" in str(objection("graphs", **cuda, workers=8))
    assert "found architecture mixtral, needed llama or qwen3" in str(
        objection("liger", **cuda | {"architecture": "mixtral"})
    )


@pytest.mark.skipif(not liger.missing(), reason="Liger is installed")
def test_liger_without_its_packages_names_them() -> None:
    assert "needed both of liger_kernel and triton; install liger-kernel" in str(
        objection("liger", **HERE | {"device": "cuda"})
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_without_a_number_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch._C, "_cuda_setDevice", chosen.append, raising=False)
    with pytest.raises(AssertionError, match="not compiled with CUDA"):
        Trainer(build(SHAPE, 0, 0), recipe(), World(device="cuda"), print)
    assert chosen == [0]


def rotated_twice(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
    plain = modeling_qwen3.apply_rotary_pos_emb
    return plain(*plain(q, k, cos, sin, unsqueeze_dim), cos, sin, unsqueeze_dim)


def test_a_rotation_is_replaced_in_one_model_alone() -> None:
    models = [build(SHAPE, 0, 0) for _ in range(2)]
    for model in models:
        for layer in model.model.layers:
            nn.init.eye_(layer.self_attn.o_proj.weight)  # a new block is the identity
    tokens = torch.arange(32)[None]
    wanted = models[1].model(tokens).last_hidden_state
    assert torch.equal(models[0].model(tokens).last_hidden_state, wanted)
    layers = [layer for layer in models[0].modules() if liger.ROTATION in liger._names(layer)]
    assert len(layers) == SHAPE.layers
    for layer in layers:
        liger._rotate_with(layer, rotated_twice)
    assert not torch.allclose(models[0].model(tokens).last_hidden_state, wanted, atol=1e-3)
    assert torch.equal(models[1].model(tokens).last_hidden_state, wanted)


def test_before_a_replay_gradients_have_a_place_of_their_own_and_sum_to_the_same_bits() -> None:
    batch, trainers = batches_for(World())(0), []
    for replayed in (False, True):
        trainers.append(Trainer(build(SHAPE, 0, 0), recipe(micro=2), World(), print))
        trainers[-1].replayed = replayed
    seen: list[dict[str, int]] = []
    graphs = trainers[1]
    forward = graphs.loss.forward

    def watched(**tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen.append({name: each.grad.data_ptr() for name, each in graphs.model.named_parameters()})
        found: tuple[Tensor, Tensor, Tensor] = forward(**tensors)
        return found

    graphs.loss.forward = watched
    plain, other = (trainer.accumulate(0, batch) for trainer in trainers)
    after = {name: each.grad.data_ptr() for name, each in graphs.model.named_parameters()}
    assert seen == [after] * 4, "a pass put gradients elsewhere"
    assert plain.loss == other.loss
    for one, two in zip(*(trainer.model.parameters() for trainer in trainers), strict=True):
        assert torch.equal(one.grad, two.grad)


def test_a_comparison_sees_a_loss_that_is_kept_and_one_that_is_not(
    monkeypatch: pytest.MonkeyPatch, margins: Margins
) -> None:
    monkeypatch.setattr(comparison, "TIMED_STEPS", 12)
    found = compare(SETTING, ("float8",))
    assert found.loss > 0 and found.speed > 0
    margins.error("loss", found.loss, most=0.005)
    margins.effect("rounding of the gradient", found.gradient, least=0.02)
    margins.error("gradient", found.gradient, most=0.25)

    def unscaled(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return values.to(dtype), torch.ones(())  # small gradients are lost

    monkeypatch.setattr(float8, "rounded", unscaled)
    lost = compare(SETTING, ("float8",))
    margins.effect("gradient that is lost", lost.gradient, least=0.5)
    margins.error("the same weights", lost.same_weights, most=lost.after_steps / 10)


def test_one_is_taken_that_adds_speed_to_those_before_it_and_keeps_the_loss() -> None:
    def of(speed: float, loss: float = 0.0) -> Comparison:
        return Comparison(speed=speed, same_weights=0.0, after_steps=loss, gradient=0.1)

    asked = []

    def compared(names: tuple[str, ...]) -> Comparison:
        asked.append(names)
        if names[-1] == "liger":
            raise RuntimeError("no\nkernel")
        return {("graphs",): of(1.2), ("graphs", "float8"): of(1.23), ("float8",): of(1.5, 0.01)}[names]

    bounds = {"gain": 0.03, "loss_tolerance": 0.005, "gradient_tolerance": 0.2}
    taken, found = pick(("liger", "graphs", "float8"), compared, **bounds)
    assert taken == ("graphs",), "1.23 is less than 3 % above 1.2"
    assert found["liger"] == "RuntimeError: no kernel"
    assert asked == [("liger",), ("graphs",), ("graphs", "float8")]
    assert pick(("graphs", "float8"), compared, **bounds | {"gain": 0.02})[0] == ("graphs", "float8")
    assert pick(("float8",), compared, **bounds)[0] == (), "its loss is another"
    assert pick(("float8",), compared, **bounds | {"loss_tolerance": 0.01})[0] == ("float8",)
    assert pick(("graphs",), compared, **bounds | {"gradient_tolerance": 0.05})[0] == (), "its gradients are others"
