"""Deadlines become seconds and sizes."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core import artifact
from components.core.config import StepConfig
from components.core.errors import ConfigError
from components.training import hardware, plan
from components.training.config import Alternative, Plan, PlanConfig, Size
from components.training.laws import BESIROGLU, HOFFMANN
from components.training.plan import alternative, choose, shape_for


def alternatives_at(config: PlanConfig, flops: float, seconds: float) -> dict[Size, Alternative]:
    shapes = {size: shape_for(config, size, 4096) for size in config.ladder}
    return {
        size: alternative(shape, flops / shape.training_flops_per_token(256), seconds) for size, shape in shapes.items()
    }


@given(st.floats(1e10, 1e13), st.floats(60, 1e5), st.floats(1, 20))
def test_more_time_or_speed_never_means_a_smaller_model(flops: float, seconds: float, factor: float) -> None:
    config = PlanConfig()
    before = alternatives_at(config, flops, seconds)
    chosen = choose(before, config.minimum_tokens_per_parameter)
    for after in (alternatives_at(config, flops * factor, seconds), alternatives_at(config, flops, seconds * factor)):
        grown = choose(after, config.minimum_tokens_per_parameter)
        assert after[grown].parameters >= before[chosen].parameters
        assert after[chosen].tokens >= before[chosen].tokens


def test_laws_give_their_papers_figures() -> None:
    # Hoffmann et al. 2022, table A3 gives 67B parameters and 1.5T tokens for Gopher's budget; both laws agree there
    # within 3 %, as Besiroglu et al. say of the range that was fitted.
    assert HOFFMANN.loss(67e9, 1.5e12) == pytest.approx(1.69 + 406.4 / 67e9**0.34 + 410.7 / 1.5e12**0.28)
    assert BESIROGLU.loss(67e9, 1.5e12) == pytest.approx(HOFFMANN.loss(67e9, 1.5e12), rel=0.03)
    with pytest.raises(ValueError, match="needed positive"):
        HOFFMANN.loss(0, 1)


def test_a_shape_counts_the_parameters_that_the_model_has() -> None:
    from components.training.model import build  # noqa: PLC0415 - the other tests need no torch

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
    tokens = make_tokens(tmp_path / "tokens")
    config = PlanConfig(mode="fixed")
    found = [plan.run(config, tokens=tokens, hardware=each, out=tmp_path / each.stem) for each in machines]
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
