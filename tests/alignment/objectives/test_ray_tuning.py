"""Several workers of fine-tuning learn what one learns."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from components.alignment import sft
from components.alignment.config import ClassifyConfig, SftConfig
from components.alignment.objectives import tuning
from components.alignment.objectives.anchored_loss import loss_of
from components.alignment.objectives.engine_tuning import Tuned, load_weights, tune
from components.alignment.objectives.ray_tuning import TuningWork, tune_share
from components.alignment.objectives.tuned_weights import open_model
from components.core import artifact
from components.core.artifact import Manifest
from components.core.events import Events
from components.deadline.budget import Budget
from components.tokens.encoding.codec import TextCodec
from components.training.engine.batches.batch import IGNORED, Batch
from components.training.engine.devices.parallel import World
from components.training.engine.model.loss import Loss
from tests.alignment.stages import SFT, SFT_READS
from tests.margins import Margins

pytestmark = pytest.mark.numeric
WORKERS = 2


def gradients(world: Path, batch: Batch, num_labels: int) -> dict[str, torch.Tensor]:
    """Of the mean loss of `num_labels`, as the engine takes it."""
    model = tuning.load_model(world / "base")
    arrays = {name: torch.from_numpy(getattr(batch, name).copy()) for name in ("inputs", "labels", "positions")}
    total, auxiliary, _ = Loss(model, scored_only=True)(**arrays)
    torch.autograd.backward(total / num_labels + auxiliary)
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def test_what_workers_take_of_a_batch_averages_to_its_gradient(world: Path, margins: Margins) -> None:
    weights = {"curriculum": 2.0}
    batches = sft.read_batches(SFT, world / "base", world / "instructions", world / "tokens", weights)
    batch = batches(3)
    shares = [batch.every(rank, WORKERS) for rank in range(WORKERS)]
    assert [len(each) for each in shares] == [4, 4]
    assert shares[0].num_labels + shares[1].num_labels == batch.num_labels, "nothing twice, nothing left out"
    assert shares[0].num_labels != shares[1].num_labels, "a mean over workers of their own means would be another one"
    whole = gradients(world, batch, batch.num_labels)
    # Each divides by the labels of all and counts as often as there are workers; the exchange takes the mean.
    parts = [gradients(world, each, batch.num_labels) for each in shares]
    for name, each in whole.items():
        margins.close(name, parts[0][name] + parts[1][name], each, rtol=1e-3, atol=1e-6)


def test_a_share_that_asks_for_nothing_adds_nothing(world: Path) -> None:
    """A worker whose rows hold no answer still takes part."""
    batch = sft.read_batches(SFT, world / "base", world / "instructions", world / "tokens", {})(0).rows(0, 2)
    batch.labels[:] = IGNORED
    assert all(not each.any() for each in gradients(world, batch, 7).values())


def test_what_several_workers_cannot_do_is_one_line() -> None:
    with pytest.raises(ValidationError, match=r"sft\.batch_rows 5 cannot be shared by so many workers evenly"):
        SftConfig(num_workers=2)
    with pytest.raises(ValidationError, match="a classifier is trained by one worker"):
        SftConfig(num_workers=2, batch_rows=4, classify=ClassifyConfig(files=("x.jsonl",)))


def work(world: Path, folder: Path, ends_at: float | None) -> TuningWork:
    folder.mkdir()
    return TuningWork(
        config=SFT.model_copy(update={"max_steps": 4, "micro_batch_rows": 2, "max_epochs": 1.0}),
        **{name: world / name for name in ("base", "instructions", "tokens")},
        weights={"curriculum": 2.0},
        run=folder,
        training_ends_at=ends_at,
        where="cpu",
        compiled=False,
    )


def test_a_worker_trains_as_the_stage_itself_does(world: Path, tmp_path: Path) -> None:
    job, rows = work(world, tmp_path / "worker", None), list[dict[str, Any]]()
    figures = tune_share(job, World(), rows.append)
    assert figures["steps"] == 4 and len(figures["history"]) == sum(row["step"] is not None for row in rows)
    model = tuning.load_model(world / "base")
    load_weights(model, job.run, Tuned(**{name: figures[name] for name in ("steps", "tokens", "seconds", "history")}))
    (tmp_path / "stage").mkdir()
    alone = open_model(job.config, world / "base")
    batches = sft.read_batches(job.config, world / "base", world / "instructions", world / "tokens", job.weights)
    steps = tuning.plan_steps(job.config, batches.steps_of_epoch, Budget(seconds=None, started=0.0))
    loss = loss_of(job.config, alone, job.base)
    tune(alone, batches, job.config, steps, tmp_path / "stage", Events("x"), loss=loss)
    assert all(torch.equal(each, alone.state_dict()[name]) for name, each in model.state_dict().items())


def test_workers_stop_when_the_time_of_the_stage_is_over(world: Path, tmp_path: Path) -> None:
    over = tune_share(work(world, tmp_path / "over", time.time() - 1.0), World(), lambda _: None)
    assert over["steps"] == 0 and over["decisions"] == [(0, 0)]
    job = work(world, tmp_path / "soon", time.time() + 3600.0)
    assert tune_share(job, World(), lambda _: None)["steps"] > 4, "an epoch, which max_steps of fixed mode is less than"


def run(world: Path, out: Path, **changes: object) -> tuple[Manifest, dict[str, torch.Tensor]]:
    config = SFT.model_copy(update={"max_steps": 6, **changes})
    manifest = sft.run(config, **{name: world / name for name in SFT_READS}, out=out)
    return manifest, load_file(out / "model.safetensors")


@pytest.mark.drill
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_two_workers_on_ray_learn_what_one_learns(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, margins: Margins
) -> None:
    monkeypatch.setenv("OVERNIGHT_RAY_NUM_CPUS", "2")
    start = load_file(world / "base" / "model.safetensors")
    alone, wanted = run(world, tmp_path / "one", tune=mode)
    together, learned = run(world, tmp_path / "two", tune=mode, num_workers=WORKERS, micro_batch_rows=2)
    for name in ("steps", "tokens", "learned", "decided", "padding_share"):
        assert together.statistics[name] == alone.statistics[name]
    moved = [name for name in wanted if not torch.equal(wanted[name], start[name])]
    assert moved and {name for name in learned if not torch.equal(learned[name], start[name])} == {*moved}
    for name in moved:
        away = float((learned[name] - wanted[name]).norm() / (wanted[name] - start[name]).norm())
        margins.error(f"difference of {name} as a share of what it moved by", away, most=0.1)
    codec = TextCodec(tmp_path / "two")
    assert codec.special.end_of_text == 0 and artifact.read(tmp_path / "two").digest == together.digest
    history = (tmp_path / "two" / "history.csv").read_text().splitlines()
    assert len(history) == len((tmp_path / "one" / "history.csv").read_text().splitlines())
