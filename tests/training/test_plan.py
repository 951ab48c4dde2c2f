"""Deadlines become seconds and sizes."""

import json
from pathlib import Path

import pytest

from components.core import artifact
from components.core.config import StepConfig
from components.core.errors import ConfigError
from components.training import plan
from components.training.config import Plan, PlanConfig
from components.training.parameters.size import Size
from components.training.plan import shape_for
from components.training.planning import fitted, hardware


def test_a_shape_counts_the_parameters_that_the_model_has() -> None:
    from components.training.engine.model.architectures import build  # noqa: PLC0415 - the other tests need no torch

    for architecture in ("llama", "qwen3"):
        for tied in (False, True):
            config = PlanConfig(architecture=architecture, tied=tied)
            shape = shape_for(config, Size(layers=2, width=128), 512)
            assert sum(each.numel() for each in build(shape, 0, 0).parameters()) == shape.parameters


def test_heads_that_do_not_fit_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"width 100 is not a multiple of head_width 64; change plan\.ladder"):
        shape_for(PlanConfig(), Size(layers=2, width=100), 512)


def make_tokens(path: Path) -> Path:
    with artifact.create(path, stage="tokenize", config=StepConfig(), inputs=[], code=Path(plan.__file__)) as draft:
        draft.statistics = {"vocabulary_size": 512}
    return path


def test_fixed_mode_measures_nothing_and_gives_the_same_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    machines = [tmp_path / "one.json", tmp_path / "two.json"]
    machines[0].write_text('{"cores": 2}')
    machines[1].write_text('{"cores": 64}')
    tokens, laws = make_tokens(tmp_path / "tokens"), tmp_path / "laws.json"
    fitted.ensure(laws)
    config = PlanConfig(mode="fixed")
    found = [plan.run(config, tokens=tokens, hardware=each, laws=laws, out=tmp_path / each.stem) for each in machines]
    assert found[0].digest == found[1].digest
    read = Plan.model_validate_json((tmp_path / "one" / "plan.json").read_bytes())
    assert (read.measured, read.alternatives, read.training_seconds, read.steps) == ({}, (), None, config.fixed.steps)


def test_the_machine_is_written_once(tmp_path: Path) -> None:
    out = tmp_path / "state" / "hardware.json"
    assert hardware.write(out)
    before = out.stat().st_mtime_ns
    assert not hardware.write(out)
    assert out.stat().st_mtime_ns == before
    assert json.loads(out.read_bytes())["cores"] >= 1
