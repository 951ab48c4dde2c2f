"""Steps that memory or numbers break, the rules of an update, and what the loop says of its speed."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from components.training.engine.batches.batch import Batch
from components.training.engine.checkpoint import AVERAGE, Checkpoint, name_of
from components.training.engine.figures import Report
from components.training.engine.model.architectures import build
from components.training.engine.trainer import NonFiniteLossError, OutOfMemoryError, Trainer, World
from tests.margins import Margins
from tests.training.runs import RATES, SHAPE, batches_for, recipe, run_small, same

pytestmark = pytest.mark.numeric

# A real failure: the kernel refuses the process more address space than the whole batch's activations want.
STARVED = """
import json, resource, sys
import numpy as np, torch
from components.training.engine.batches.batch import next_token_batch
from components.training.engine.model.architectures import build
from components.training.engine.trainer import OutOfMemoryError, Trainer, World
from tests.training.runs import SHAPE, recipe
torch.set_num_threads(1)
spare, samples = int(sys.argv[1]), int(sys.argv[2])
notes = []
trainer = Trainer(build(SHAPE, 0, 0), recipe(micro=samples), World(), notes.append)
batch = next_token_batch(np.random.default_rng(0).integers(0, 128, size=(samples, 33)))
trainer.warm_up(batch.rows(0, 2))
def limit(spare):
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + spare, resource.RLIM_INFINITY))
limit(spare)
try:
    found = trainer.accumulate(3, batch)
except OutOfMemoryError as error:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(json.dumps({"error": str(error), "notes": notes}))
    sys.exit()
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
first = {name: each.grad.clone() for name, each in trainer.model.named_parameters()}
rows = trainer.micro_batch_samples
plain = Trainer(build(SHAPE, 0, 0), recipe(micro=rows), World(), notes.append)
wanted = plain.accumulate(3, batch)
equal = all(torch.equal(each.grad, first[name]) for name, each in plain.model.named_parameters())
print(json.dumps({"notes": notes, "rows": rows, "equal": equal, "loss": [found.loss, wanted.loss]}))
"""


def starved(spare_bytes: int, samples: int) -> dict[str, object]:
    """What a step of `samples` samples came to in a process that may take `spare_bytes` more."""
    command = [sys.executable, "-c", STARVED, str(spare_bytes), str(samples)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_a_step_that_memory_breaks_is_taken_again_in_smaller_parts() -> None:
    found = starved(160 << 20, 1024)
    assert found["notes"][0] == (  # type: ignore[index]
        "step 3: not enough memory for micro-batches of 1024 samples, going on with 512"
    )
    assert found["equal"], "as if it had begun with that size"
    assert found["loss"][0] == found["loss"][1]  # type: ignore[index]
    assert found["rows"] < 1024  # type: ignore[operator]


def fail(**_: object) -> None:
    """Stands for a batch that no memory holds."""
    torch.empty(1 << 60)


def test_when_one_sample_is_too_much_the_error_says_what_to_do() -> None:
    notes: list[str] = []
    trainer = Trainer(build(SHAPE, 0, 0), recipe(micro=8), World(), notes.append)
    trainer.loss = fail
    with pytest.raises(OutOfMemoryError, match=r"step 7: not enough memory for 1 sample of .* on worker 0; lower plan"):
        trainer.accumulate(7, batches_for(World())(7))
    assert [note[-1] for note in notes] == ["4", "2", "1"]


def test_a_gradient_that_is_not_a_number_changes_nothing() -> None:
    trainer = Trainer(build(SHAPE, 0, 0), recipe(), World(), lambda _: None)
    trainer.accumulate(0, batches_for(World())(0))
    trainer.update(0, 1.0)
    before = {piece.name: piece.tensor.clone() for piece in trainer.optimizer.pieces()}
    trainer.accumulate(1, batches_for(World())(1))
    trainer.model.model.norm.weight.grad[3] = float("inf")
    with pytest.raises(NonFiniteLossError, match="step 1: the norm of the gradient is inf; lower the learning rates"):
        trainer.update(1, 1.0)
    assert same(before, {piece.name: piece.tensor for piece in trainer.optimizer.pieces()})


def test_adamw_for_everything_is_torchs_adamw(margins: Margins) -> None:
    rates = replace(RATES, optimizer="adamw", adamw_matrix=0.01, clip_norm=1e9)
    trainer = Trainer(build(SHAPE, 0, 0), replace(recipe(), rates=rates), World(), lambda _: None)
    oracle = build(SHAPE, 0, 0)
    name = "model.layers.0.mlp.gate_proj.weight"
    reference = torch.optim.AdamW(
        [oracle.get_parameter(name)], lr=0.01 * 0.5, betas=rates.betas, eps=rates.epsilon, weight_decay=0.01
    )
    assert not trainer.optimizer.stacks
    for step in range(3):
        trainer.accumulate(step, batches_for(World())(step))
        oracle.get_parameter(name).grad = trainer.model.get_parameter(name).grad.clone()
        reference.step()
        trainer.update(step, 0.5)
        weights = (each.get_parameter(name).detach() for each in (trainer.model, oracle))
        margins.close("weights", *weights, rtol=1e-5, atol=1e-6)


def test_the_average_of_weights_is_kept_and_survives_a_break(tmp_path: Path, margins: Margins) -> None:
    how = replace(recipe(checkpoint_seconds=0.0), rates=replace(RATES, average_decay=0.5), checkpoints_kept=100)
    run_small(tmp_path / "whole", steps=12, how=how)
    average = Checkpoint(tmp_path / "whole" / name_of(1)).weights(AVERAGE)
    for step in range(2, 13):
        last = Checkpoint(tmp_path / "whole" / name_of(step))
        decay = min(0.5, step / (9 + step))
        average = {name: decay * average[name] + (1 - decay) * each for name, each in last.weights().items()}
    found = last.weights(AVERAGE)
    for name, each in average.items():
        margins.close(name, found[name], each, rtol=1e-5, atol=1e-6)
    assert not same(found, last.weights())
    with pytest.raises(BrokenError):
        run_small(tmp_path / "broken", steps=12, how=how, batches=stop_at(7))
    run_small(tmp_path / "broken", steps=12, how=how)
    assert same(found, Checkpoint(tmp_path / "broken" / name_of(12)).weights(AVERAGE))


def stop_at(step: int) -> Callable[[int], Batch]:
    """Batches that end a process's work at a step."""

    def batches(number: int) -> Batch:
        if number == step:
            raise BrokenError
        return batches_for(World())(number)

    return batches


class BrokenError(Exception):
    """Stands for the end of a process."""


def test_the_z_loss_lowers_the_normaliser_and_leaves_the_loss_in_nats(margins: Margins) -> None:
    losses, squares = [], []
    for z_loss in (0.0, 1.0):
        trainer = Trainer(build(SHAPE, 0, 0), replace(recipe(), z_loss=z_loss), World(), lambda _: None)
        for step in range(8):
            losses.append(trainer.accumulate(step, batches_for(World())(step)).loss)
            trainer.update(step, 1.0)
        batch = torch.from_numpy(batches_for(World())(9).inputs)
        with torch.no_grad():
            squares.append(float(trainer.model(input_ids=batch).logits.logsumexp(-1).square().mean()))
    assert losses[0] == losses[8]
    margins.effect("share of the square that z-loss takes", 1 - squares[1] / squares[0], least=0.15)


def test_figures_of_speed_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.training.engine.figures.gemm_flops", lambda *_: 1e9)
    rows: list[Report] = []
    seconds_in_steps, tokens = 0.0, 5 * 8 * 32

    def pause(row: Report) -> None:
        nonlocal seconds_in_steps
        rows.append(row)
        assert row.flops_utilisation is not None
        in_steps = tokens * 1e6 / 1e9 / row.flops_utilisation
        assert in_steps <= tokens / row.tokens_per_second
        seconds_in_steps += in_steps
        assert row.goodput == pytest.approx(seconds_in_steps / (time.time() - began), rel=0.02)
        assert seconds_in_steps <= row.seconds - 0.2 * (len(rows) - 1), "the pauses moved nothing"
        time.sleep(0.2)

    began = time.time() - 1000  # so long that what a busy machine adds between two looks at the clock is no share of it
    run_small(tmp_path, steps=20, how=replace(recipe(), flops_per_token=1e6), report=pause, began_at=began)
    assert [row.step for row in rows] == [5, 10, 15, 20]
    assert 50 << 20 < rows[-1].memory_bytes < 64 << 30
