"""pretrain.update reaches the trainer and its schedule; what DVC plots of a run is there."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.core import plain_yaml
from components.core.graph.closure import ROOT
from components.training.config import PretrainConfig
from components.training.parameters.update import UpdateConfig
from components.training.run.worker import TABLES, decay_share_of, recipe_of, schedule_of
from components.training.run.worker_input import Work
from tests.training.runs import SHAPE


def work(**options: Any) -> Work:
    """Ten steps in fixed mode."""
    plan = SimpleNamespace(
        precision="float32",
        compiled=False,
        micro_batch_samples=4,
        sequence_length=32,
        shape=SHAPE,
        steps=100,
        validate_every_steps=10,
        decisions=(),
        parallel="data",
        activation_checkpointing=False,
        accelerators=(),
    )
    config = PretrainConfig(update=UpdateConfig(**options), warmup_steps=0, decay_share=0.3, final_share=0.1)
    fields: dict[str, Any] = {"config": config, "plan": plan, "run": Path("a run that has not begun")}
    return Work.model_construct(**fields)


def test_options_of_the_update_reach_the_recipe() -> None:
    found = recipe_of(work(optimizer="adamw", adamw_matrix=0.005, z_loss=1e-4, average_decay=0.99))
    assert (found.rates.optimizer, found.rates.adamw_matrix, found.rates.average_decay) == ("adamw", 0.005, 0.99)
    assert found.z_loss == 1e-4
    assert found.flops_per_token == SHAPE.training_flops_per_token(32)
    plain = recipe_of(work())
    assert (plain.rates.optimizer, plain.z_loss, plain.rates.average_decay) == ("muon", 0.0, 0.0)


def test_a_cosine_falls_from_the_first_step_and_a_line_from_its_share() -> None:
    line, cosine = schedule_of(work()), schedule_of(work(schedule="cosine"))
    assert (line.decisions, cosine.decisions) == ([(70, 100)], [(0, 100)])
    assert decay_share_of(work(schedule="cosine")) == 1.0
    assert line.share(50) == 1.0
    assert cosine.share(50) == pytest.approx(0.55)


def test_the_columns_that_dvc_plots_are_written() -> None:
    declared = plain_yaml.parse((ROOT / "dvc.yaml").read_text(), "dvc.yaml")["plots"]
    plots = [options for entry in declared for options in entry.values()]
    shown = {
        (Path(path).name, column)
        for options in plots
        for path, y in options["y"].items()
        for column in (options["x"], y)
        if path.startswith("models/base/")
    }
    assert {name for name, _ in shown} == TABLES.keys()
    assert all(column in TABLES[name] for name, column in shown)
