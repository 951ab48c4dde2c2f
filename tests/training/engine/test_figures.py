"""What a run says of itself: by source, and on its way to whoever watches."""

import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.core.config import Settings
from components.training.engine import figures
from components.training.engine.batches.batch import Batch
from components.training.engine.figures import Report
from components.training.engine.trainer import World
from components.training.run import workers
from dashboards.metrics import EventsCollector
from tests.margins import Margins
from tests.training.runs import batches_for, recipe, run_small

pytestmark = pytest.mark.numeric

STALL_SECONDS = 0.03
SOURCES = np.array([0, 1, 1, 1, 0, 1, 1, 1])


def slow(step: int) -> Batch:
    """Of two sources, the second of which says anything, by a reader that takes its time."""
    time.sleep(STALL_SECONDS)
    batch = batches_for(World())(step)
    noise = np.random.default_rng(step).integers(0, 128, batch.labels.shape)
    labels = np.where((SOURCES == 1)[:, None], noise, batch.labels)
    return replace(batch, sources=SOURCES, labels=labels)


def test_a_run_says_which_share_of_its_time_it_waited_for_data(tmp_path: Path) -> None:
    found: list[Report] = []
    started = time.monotonic()
    outcome, _ = run_small(tmp_path, steps=20, batches=slow, report=found.append)
    waited = sum(row.data_stall_seconds for row in found)
    assert 0 < outcome.data_stall_share < 1
    assert outcome.data_stall_share == pytest.approx(waited / outcome.seconds)
    assert 20 * STALL_SECONDS <= waited < time.monotonic() - started
    again, _ = run_small(tmp_path, steps=20, batches=slow)
    assert again.data_stall_share == 0, "an attempt that takes no step waits for none"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Report]:
    found: list[Report] = []
    how = replace(recipe(), flops_per_token=1e6)
    folder = tmp_path_factory.mktemp("run")
    run_small(folder, steps=20, how=how, batches=slow, report=found.append, sources=("code", "notes.old"))
    return found


def test_losses_by_source_add_up_to_the_loss(rows: list[Report], margins: Margins) -> None:
    for row in rows:
        assert 0.25 * row.loss_by_source["code"] + 0.75 * row.loss_by_source["notes.old"] == pytest.approx(row.loss)
    apart = rows[-1].loss_by_source["notes.old"] - rows[-1].loss_by_source["code"]
    margins.effect("noise above what can be learned", apart, least=0.5)


def test_waiting_for_data_is_told(rows: list[Report]) -> None:
    for row in rows:
        assert 5 * STALL_SECONDS <= row.data_stall_seconds < row.seconds
    seconds = np.diff([0.0, *(row.seconds for row in rows)])
    for row, passed in zip(rows, seconds, strict=True):
        assert row.data_stall_share == pytest.approx(row.data_stall_seconds / passed)


def test_every_figure_reaches_prometheus(rows: list[Report], tmp_path: Path) -> None:
    settings = Settings(state=tmp_path, cycle="20261121-000000-aaaa")
    row = replace(rows[-1], validation_bits_per_byte=1.5)
    told = {**asdict(row), "notes": [], "training_seconds": None}
    workers.Tell("pretrain", settings, 2).after_report(None, [told, told], None)
    served = {
        sample.name.removeprefix("overnight_pretrain_"): sample.value
        for family in EventsCollector(settings).collect()
        for sample in family.samples
    }
    figures = {each.name for each in fields(Report)} - {"step", "tokens", "seconds", "total_steps", "loss_by_source"}
    assert {name: served[name] for name in figures} == {name: getattr(row, name) for name in figures}
    assert served["loss_code"] == row.loss_by_source["code"]
    assert served["loss_notes_old"] == row.loss_by_source["notes.old"]


def test_a_product_that_would_take_long_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in bfloat16 on a processor that has none: a minute for each product of the widest."""
    monkeypatch.setattr(figures, "PEAK_SIDES", {"cpu": (64, 1 << 20)})  # 4 TB, and a day
    assert figures.gemm_flops(torch.float32, "cpu") > 0
