"""The loop: deterministic, resumable, independent of how a batch is cut."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._inductor import config as inductor
from transformers.modeling_utils import PreTrainedModel

from components.training.engine import checkpoint
from components.training.engine.batches.strides import strided_windows
from components.training.engine.figures import Report
from components.training.engine.loop import train
from components.training.engine.model.architectures import build
from components.training.engine.optimizer import orthogonalise
from components.training.engine.schedule import fixed
from components.training.engine.trainer import NonFiniteLossError, Trainer, World
from components.training.engine.validation import bits_per_byte, nats
from tests.margins import Margins
from tests.training.runs import SHAPE, TOKENS, batches_for, recipe, run_small, same

pytestmark = pytest.mark.numeric


class BrokenError(Exception):
    """Stands for the end of a process."""


def break_at(step: int, reports: list[Report]) -> object:
    def report(row: Report) -> None:
        reports.append(row)
        if row.step == step:
            raise BrokenError

    return report


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_gives_the_same_weights_and_learns(tmp_path: Path, precision: str, margins: Margins) -> None:
    rows: list[Report] = []
    one = run_small(tmp_path / "one", steps=60, how=recipe(precision=precision), report=rows.append)
    two = run_small(tmp_path / "two", steps=60, how=recipe(precision=precision))
    assert same(one[1], two[1])
    assert one[0].history == two[0].history
    # Three continuations are equally likely: ln 3 = 1.10 is the floor, ln 128 = 4.85 chance.
    margins.effect("below chance", math.log(128) - rows[-1].loss, least=1.5)


def test_validations_make_a_line_and_leave_the_weights_alone(tmp_path: Path) -> None:
    """Every tenth step and after the last one; the run is what it is without them, bit for bit."""

    def bits(model: PreTrainedModel) -> float:
        return bits_per_byte(nats(model, [TOKENS[:100].astype(np.uint16)], 32, 0, "cpu"), 100)

    without, weights = run_small(tmp_path / "without", steps=37)
    validated, same_weights = run_small(tmp_path / "with", steps=37, how=recipe(validate_every_steps=10), validate=bits)
    found = {row["step"]: row.pop("validation_bits_per_byte") for row in validated.history}
    assert [step for step, value in found.items() if value is not None] == [10, 20, 30, 37]
    assert {row.pop("validation_bits_per_byte") for row in without.history} == {None}
    assert validated.history == without.history
    assert same(weights, same_weights)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_broken_run_resumed_equals_an_unbroken_one(tmp_path: Path, precision: str) -> None:
    whole = run_small(tmp_path / "whole", how=recipe(precision=precision))
    every = recipe(precision=precision, checkpoint_seconds=0.0)
    with pytest.raises(BrokenError):
        run_small(tmp_path / "broken", how=every, report=break_at(15, []))  # type: ignore[arg-type]
    notes: list[str] = []
    resumed = run_small(tmp_path / "broken", how=every, note=notes.append)
    assert "resumed at step 14" in notes[0]
    assert same(whole[1], resumed[1])
    assert whole[0].history == resumed[0].history
    assert whole[0].tokens == resumed[0].tokens == 20 * 8 * 32


def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_used(tmp_path: Path) -> None:
    whole = run_small(tmp_path / "whole")
    every = recipe(checkpoint_seconds=0.0)
    with pytest.raises(BrokenError):
        run_small(tmp_path / "run", how=every, report=break_at(15, []))  # type: ignore[arg-type]
    assert checkpoint.steps(tmp_path / "run") == [14, 13]
    damaged = tmp_path / "run" / "step-00000014" / "pieces-00000-of-00001.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(checkpoint.DamagedCheckpointError, match=r"00001\.safetensors: found sha256 \w+, wanted \w+"):
        checkpoint.Checkpoint(damaged.parent).verify()
    notes: list[str] = []
    resumed = run_small(tmp_path / "run", how=every, note=notes.append)
    assert "checkpoint refused" in notes[0]
    assert "resumed at step 13" in notes[1]
    assert same(whole[1], resumed[1])


def test_a_checkpoint_without_its_manifest_does_not_exist(tmp_path: Path) -> None:
    run_small(tmp_path, steps=20, how=recipe(checkpoint_seconds=0.0))
    (tmp_path / "step-00000020" / checkpoint.MANIFEST).unlink()
    found = checkpoint.load_last_good(tmp_path, lambda _: None)
    assert found is not None
    assert found.step == 19
    assert json.loads((tmp_path / "step-00000019" / checkpoint.STATE).read_text())["tokens"] == 19 * 8 * 32


def test_micro_batches_give_the_gradient_of_the_batch(tmp_path: Path, margins: Margins) -> None:
    _, whole = run_small(tmp_path / "whole", steps=11)
    _, parts = run_small(tmp_path / "parts", steps=11, how=recipe(micro=2))
    for name, each in whole.items():
        margins.close(name, parts[name], each, rtol=0.05, atol=0.02)


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    trainer = Trainer(build(SHAPE, 0, 0), recipe(checkpoint_seconds=0.0), World(), lambda _: None)

    def spoil(row: Report) -> None:
        if row.step == 10:
            torch.nn.init.constant_(trainer.model.model.norm.weight, float("nan"))

    with pytest.raises(NonFiniteLossError, match="step 10: the loss is nan; lower the learning rates"):
        train(
            trainer,
            batches=batches_for(World()),
            schedule=fixed(3, 0.1, [(10, 20)]),
            pace=None,
            run=tmp_path,
            report=spoil,
            validate=None,
        )
    kept = checkpoint.load_last_good(tmp_path, lambda _: None)
    assert kept is not None
    assert kept.step == 10
    assert all(bool(each.isfinite().all()) for each in kept.weights().values())


def test_without_a_compiler_training_goes_on_in_eager_mode(tmp_path: Path) -> None:
    torch.compiler.reset()
    notes: list[str] = []
    _, eager = run_small(tmp_path / "eager", steps=10 + 1)
    # torch's own patch: pytest's monkeypatch does not know how these modules keep their values, and leaves the caches
    # off and no name of a compiler behind, for every test after this one.
    with inductor.patch({"cpp.cxx": ("/nonexistent/g++",), "force_disable_caches": True}):
        _, found = run_small(tmp_path / "none", steps=10 + 1, how=recipe(compiled=True), note=notes.append)
    assert "no compilation, training in eager mode" in notes[0]
    assert same(eager, found)


def test_orthogonalise_brings_singular_values_near_one(margins: Margins) -> None:
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((64, 64), (160, 64), (64, 160)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(3, rows, columns, generator=generator)).float())
        margins.error("beyond one", float(values.max()) - 1, most=0.3)
        margins.effect("share above a half", float((values > 0.5).float().mean()), least=0.6)


@given(st.integers(1, 400), st.integers(2, 50))
def test_windows_score_every_prediction_once(num_predictions: int, context: int) -> None:
    found = list(strided_windows(num_predictions, context))
    assert [index for _, scored, end in found for index in range(scored, end)] == list(range(num_predictions))
    for first, scored, end in found:
        assert end - first <= context
        assert scored - first >= min(scored, context // 2 - 1)
