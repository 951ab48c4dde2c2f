"""Every mistake in params.yaml or a setting is one line: file, key, found, allowed, nearest key."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from components.core.config import StepConfig, read_section, read_settings, read_yaml
from components.core.errors import ConfigError


class Cosine(StepConfig):
    kind: Literal["cosine"] = "cosine"
    warmup_steps: int = 0


class Linear(StepConfig):
    kind: Literal["linear"] = "linear"
    decay_steps: int = 0


class Training(StepConfig):
    vocabulary_size: int = Field(4096, ge=256)
    optimizer: Literal["adamw", "muon"] = "muon"
    rates: tuple[float, ...] = (0.1,)
    schedules: tuple[Annotated[Cosine | Linear, Field(discriminator="kind")], ...] = ()


def section(tmp_path: Path, text: str) -> Training:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return read_section(path, "pretrain", Training)


def test_values_and_defaults(tmp_path: Path) -> None:
    config = section(tmp_path, "pretrain: {vocabulary_size: 512, rates: [1, 2.5]}")
    assert config == Training(vocabulary_size=512, rates=(1.0, 2.5))
    assert config.digest != Training().digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pretrain: {vocab: 1}", "pretrain.vocab is not a key; did you mean pretrain.vocabulary_size?"),
        ("pretrain: {optimiser: muon}", "pretrain.optimiser is not a key; did you mean pretrain.optimizer?"),
        ("pretrain: {vocabulary_size: '4096'}", "pretrain.vocabulary_size is '4096'; input should be a valid integer"),
        ("pretrain: {vocabulary_size: 1}", "greater than or equal to 256"),
        ("pretrain: {optimizer: sgd}", "input should be 'adamw' or 'muon'"),
        ("pretrain: {vocabulary_size: 1, optimizer: 2}", "(and 1 more)"),
        (
            "pretrain: {schedules: [{kind: cosine}, {kind: linear, decay_stps: 1}]}",
            "schedules.1.linear.decay_stps is not a key; did you mean pretrain.schedules.1.linear.decay_steps?",
        ),
        ("other: {}", "section pretrain is missing"),
        ("- a\n- b", "found list, needed a mapping"),
        ("pretrain: {a: 1, a: 2}", "duplicate key"),
        ("pretrain: [", "not valid YAML"),
        ("", "found NoneType"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        section(tmp_path, text)
    line = str(caught.value)
    assert said in line and "params.yaml" in line and "\n" not in line
    assert caught.value.exit_code == 2


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not found; `git checkout"):
        read_yaml(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "binary.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)


def test_settings_come_from_the_environment_then_the_file(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('gateway_port = 9000\nmlflow_url = "http://file"\n')
    environ = {"OVERNIGHT_STATE": str(tmp_path), "OVERNIGHT_MLFLOW_URL": "http://variable", "RAY_ADDRESS": "h:1"}
    settings = read_settings(environ)
    assert (settings.gateway_port, settings.mlflow_url, settings.ray_address) == (9000, "http://variable", "h:1")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OVERNIGHT_GATEWAY_PORT", "eighty", "OVERNIGHT_GATEWAY_PORT is 'eighty'"),
        ("OVERNIGHT_MLFLOW_PORT", "0", "PORT"),
        ("OVERNIGHT_HOST", "0.0.0.0", "HOST is '0.0.0.0'; the gateway, .* open to the network .* needed a loopback"),
        ("OVERNIGHT_HOST", "192.168.1.7", "needed a loopback address, as 127.0.0.1"),
        ("OVERNIGHT_HOST", "::", "needed a loopback address"),
        ("OVERNIGHT_HOST", "gpu-box", "needed a loopback address"),
        ("OVERNIGHT_HOST", "127.0.0.1 --app x", "needed a loopback address"),
        ("OVERNIGHT_HOST", "--reload", "HOST is '--reload'; a leading - would be read as an option"),
        ("OVERNIGHT_ENVIRONMENTS_URL", "--upload-pack=evil", "ENVIRONMENTS_URL is '--up.* a leading - would be"),
        ("OVERNIGHT_JUDGE_MODEL", "-x", "JUDGE_MODEL is '-x'; a leading - would be"),
    ],
)
def test_bad_settings_name_their_variable(tmp_path: Path, variable: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_settings({"OVERNIGHT_STATE": str(tmp_path), variable: value})


def test_a_state_that_looks_like_an_option_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"OVERNIGHT_STATE is '-x'; a leading - .* write ./-... for a path"):
        read_settings({"OVERNIGHT_STATE": "-x"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.7", "localhost"])
def test_every_loopback_address_will_do(tmp_path: Path, host: str) -> None:
    assert read_settings({"OVERNIGHT_STATE": str(tmp_path), "OVERNIGHT_HOST": host}).host == host


def test_bad_settings_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("gateway_prt = 1\n")
    with pytest.raises(ConfigError, match=r"settings.toml: gateway_prt is not a key; did you mean gateway_port\?"):
        read_settings({"OVERNIGHT_STATE": str(tmp_path)})
