"""Addresses: none runs a command, none carries a password, and none is shown with one."""

import pytest

from components.core.addresses import git_address, masked, without_password
from components.core.config import read_settings, validate
from components.core.errors import ConfigError
from components.data.config import IngestConfig

SECRET = "hunter2"
WITH_SECRET = (
    "https://ann:{}@host/x.git",
    "https://{}@host/x.git",
    "HTTPS://ann:{}@host",
    "https://ann:p/{}@host/x",
    "https://host/x?private_token={}",
    "ssh://git:{}@host:22/x",
    "postgresql://ann:{}@host/db",
    "postgresql+psycopg2://ann:{}@host/db",
    "s3://key:{}@bucket/x",
    "ann:{}@host:team/x",
)
WITHOUT = (
    "https://host/team/x.git",
    "https://host:8443/team/x@1.0",
    "https://[::1]:8443/x",
    "ssh://git@host/x",
    "git@host:team/x",
    "file:///srv/a:b@c",
    "/srv/git/x@2",
    "../x",
    "team/data",
)


@pytest.mark.parametrize("address", WITH_SECRET)
def test_an_address_with_a_password_is_refused_and_masked(address: str) -> None:
    with pytest.raises(ValueError, match=r"carries a password or a token.*; elsewhere") as error:
        without_password(address.format(SECRET), "elsewhere")
    assert SECRET not in str(error.value)
    assert SECRET not in masked(f"fatal: unable to access '{address.format(SECRET)}': refused")


@pytest.mark.parametrize("address", WITHOUT)
def test_an_address_without_one_is_taken(address: str) -> None:
    assert without_password(address, "") == address == git_address(address)


@pytest.mark.parametrize("name", ["mlflow_url", "prefect_url", "judge_url"])
def test_a_setting_with_a_password_is_one_line_that_says_where_it_belongs(name: str) -> None:
    variable = f"OVERNIGHT_{name.upper()}"
    with pytest.raises(
        ConfigError, match=rf"environment: {variable} is 'https://\*\*\*@host'; it carries a password"
    ) as error:
        read_settings({variable: f"https://ann:{SECRET}@host"})
    assert SECRET not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "huggingface", "dataset": f"https://ann:{SECRET}@host/x"},
        {"kind": "huggingface", "dataset": "team/x", "data_files": [f"https://ann:{SECRET}@host/x.parquet"]},
        {"kind": "s3", "bucket": f"key:{SECRET}@bucket"},
        {"kind": "git", "url": f"https://ann:{SECRET}@host/x", "absent": 1},
        {"kind": "git", "url": ["x", f"https://ann:{SECRET}@host/x"]},
        {"kind": f"https://ann:{SECRET}@host/x"},
    ],
)
def test_no_mistake_beside_a_password_shows_it(source: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as error:
        validate({"sources": [source]}, IngestConfig, "params.yaml", "ingest")
    assert SECRET not in str(error.value)
