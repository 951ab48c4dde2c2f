"""What to do (params.yaml) and where things live (OVERNIGHT_* or .overnight/settings.toml).

The one place that reads the environment. Both are frozen pydantic models that refuse unknown keys; every mistake
becomes one line: file, key, what was found, what is allowed, the nearest valid key.
"""

import difflib
import hashlib
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from components.core import plain_yaml
from components.core.addresses import masked, without_password
from components.core.errors import ConfigError
from components.core.plain_yaml import shown
from components.core.private import require_ours, require_private
from components.core.text import read_text


def _compiled(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return patterns


RegularExpressions = Annotated[tuple[str, ...], AfterValidator(_compiled)]


class StepConfig(BaseModel):
    """Parameters of one stage: identity, never location. Frozen, typed strictly, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON of all values, hex."""
        return digest_of(self.model_dump(mode="json"))

    @property
    def named_files(self) -> tuple[str, ...]:
        """Files that the parameters name and the stage reads: their content decides, too, whether it runs again."""
        return ()


_KEYS = ("judge_key", "teacher_key")


class Settings(BaseModel):
    """Where things live: OVERNIGHT_<NAME>, else .overnight/settings.toml, else the default."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    state: Path = Field(Path(".overnight"), description="everything that is neither source nor artifact")
    ray_address: str | None = Field(None, description="a running Ray cluster; RAY_ADDRESS is honoured too")
    ray_num_cpus: int | None = Field(None, ge=1, description="logical CPUs of the local Ray; all cores when absent")
    mlflow_url: str | None = Field(None, description="MLflow tracking server; a local SQLite file when absent")
    prefect_url: str | None = Field(None, description="Prefect API; a temporary local server when absent")
    environments_url: str | None = Field(
        None, description="Git remote of the environment files; a local bare repository when absent"
    )
    judge_url: str | None = Field(
        None, description="OpenAI-compatible endpoint that judges candidates; the model itself when absent"
    )
    judge_model: str = Field("judge", description="model name sent to judge_url")
    judge_key: SecretStr | None = Field(None, description="key for judge_url; better in the environment than in a file")
    judge_parallel_requests: int = Field(8, ge=1, le=256, description="requests to judge_url at one time")
    judge_timeout_seconds: float = Field(60.0, gt=0, description="time for one reply of judge_url, at each try")
    judge_prompt_price: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="what judge_url takes for a million tokens that it reads"
    )
    judge_completion_price: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="what judge_url takes for a million tokens that it writes"
    )
    teacher_key: SecretStr | None = Field(
        None, description="key for instructions.teacher.url; better in the environment than in a file"
    )
    teacher_parallel_requests: int = Field(8, ge=1, le=256, description="requests to the teacher's url at one time")
    teacher_timeout_seconds: float = Field(300.0, gt=0, description="time for one answer of the teacher, at each try")
    safety_classifier: Path | None = Field(
        None, description="directory of a sequence classifier that labels answers of the safety suites, where it judges"
    )
    host: str = Field("127.0.0.1", description="loopback address that every service binds to")
    gateway_port: int = Field(8000, ge=1, le=65535)
    mlflow_port: int = Field(5000, ge=1, le=65535)
    prefect_port: int = Field(4200, ge=1, le=65535)
    metrics_port: int = Field(9464, ge=1, le=65535, description="where Prometheus finds a cycle's gauges")
    ray_port: int | None = Field(None, ge=1, le=65535, description="port of the local Ray head; a free one when absent")
    benchmarks: Path = Field(
        Path("../shared/data"), description="published benchmark files, for tests and commands; no stage reads them"
    )
    cycle: str | None = Field(None, description="id of the running cycle; set by the flow for its stages")
    cycle_started_at: float | None = Field(None, description="its start, seconds since the epoch; set with its id")
    stage_ends_at: float | None = Field(
        None, description="when the stage should end, seconds since the epoch; set by the flow for stages with a clock"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_option(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and value.startswith("-") and info.field_name not in _KEYS:
            raise ValueError("a leading - would be read as an option of a program; write ./-... for a path")
        return value

    @field_validator("host")
    @classmethod
    def _loopback(cls, value: str) -> str:
        if value != "localhost" and not _is_loopback(value):
            raise ValueError(
                "the gateway, Ray and the metrics would be open to the network without a key; needed a loopback "
                "address, as 127.0.0.1: let others in by `ssh -L`, or by a proxy here that asks who they are"
            )
        return value

    @field_validator(*_KEYS)
    @classmethod
    def _one_line(cls, key: SecretStr | None) -> SecretStr | None:
        text = "" if key is None else key.get_secret_value()
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("needed printable ASCII characters without spaces: a header of HTTP holds no others")
        return key

    @field_validator("mlflow_url", "prefect_url", "judge_url")
    @classmethod
    def _no_password(cls, address: str | None, info: ValidationInfo) -> str | None:
        return None if address is None else without_password(address, _CREDENTIALS[str(info.field_name)])


def _is_loopback(value: str) -> bool:
    """Whether an address of IPv4 reaches this machine alone."""
    try:
        return ipaddress.IPv4Address(value).is_loopback
    except ValueError:
        return False


# Where each client looks for credentials. The environment repository takes its own (components/release/address.py).
_CREDENTIALS = {
    "mlflow_url": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, instead",
    "prefect_url": "set PREFECT_API_AUTH_STRING or PREFECT_API_KEY instead",
    "judge_url": "set OVERNIGHT_JUDGE_KEY instead",
}
Model = TypeVar("Model", bound=BaseModel)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space: equal values give equal text. NaN and infinities raise ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """sha256 of the canonical JSON of a value, hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def environment() -> dict[str, str]:
    """A copy of the process environment, for children."""
    return dict(os.environ)


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings of this process. Raises ConfigError with one line for an unknown or unusable one, or where another user
    could have written them."""
    environ = os.environ if environ is None else environ
    state = Path(environ.get("OVERNIGHT_STATE", ".overnight"))
    require_private(state)
    source = state / "settings.toml"
    values: dict[str, Any] = {}
    if source.exists():
        require_ours(source)
        try:
            values = tomllib.loads(read_text(source))
        except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{source}: cannot be read as TOML: {error}") from error
    names = {}
    for name in Settings.model_fields:
        variable = f"OVERNIGHT_{name.upper()}"
        if environ.get(variable):
            values[name] = environ[variable]
            names[name] = variable
    if environ.get("RAY_ADDRESS") and "ray_address" not in values:
        values["ray_address"] = environ["RAY_ADDRESS"]
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]["loc"][0]
        where = "environment" if first in names else str(source)
        raise ConfigError(explain(error, where, "", Settings, names)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping. Raises ConfigError with one line, never a traceback."""
    content = plain_yaml.read(path, f"`git checkout {path}` brings the committed one back")
    value = plain_yaml.parse(content, str(path))
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: found {type(value).__name__}, needed a mapping with one section per stage")
    return value


def read_section(path: Path, section: str, config_type: type[Model]) -> Model:
    """The section of one stage as its config. Raises ConfigError with one line for every mistake."""
    return section_of(read_yaml(path), path, section, config_type)


def section_of(values: Mapping[str, Any], path: Path, section: str, config_type: type[Model]) -> Model:
    """A section of a file that was read. Raises ConfigError as `read_section` does."""
    if section not in values:
        raise ConfigError(
            f"{path}: section {section} is missing; `overnight cycle --profile smoke` writes every section"
        )
    return validate(values[section], config_type, str(path), section)


def validate(value: Any, config_type: type[Model], where: str, prefix: str = "") -> Model:
    """A parsed YAML value as a config. Raises ConfigError that names `where`, the key and the mend."""
    try:
        return config_type.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise ConfigError(explain(error, where, prefix, config_type)) from error
    except (TypeError, ValueError, RecursionError) as error:
        section = f"{prefix}: " if prefix else ""
        raise ConfigError(f"{where}: {section}{shown(error)}; use plain YAML values") from error


def explain(
    error: ValidationError,
    where: str,
    prefix: str,
    config_type: type[BaseModel],
    names: Mapping[str, str] | None = None,
) -> str:
    """One line for the first mistake in a ValidationError, with a count of the others."""
    mistakes = error.errors()
    first = mistakes[0]
    path = [shown(part) for part in first["loc"]]
    key = ".".join([*([prefix] if prefix else []), *path])
    if names and path and path[0] in names:
        key = names[path[0]]
    if first["type"] == "extra_forbidden":
        line = f"{where}: {key} is not a key{_nearest(path, prefix, config_type)}"
    elif first["type"] == "missing":
        line = f"{where}: {key} is missing; add it, or compose the file with `overnight cycle --profile smoke`"
    else:
        excerpt = "***" if _is_secret(config_type, path) else masked(repr(first["input"]))  # before it is cut
        excerpt = excerpt if len(excerpt) <= 80 else excerpt[:77] + "..."
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        line = f"{f'{where}: {key}' if key else where} is {excerpt}; {message[:1].lower()}{message[1:]}"
    return masked(line) + (f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else "")


def _is_secret(config_type: type[BaseModel], path: list[str]) -> bool:
    field = config_type.model_fields.get(path[0]) if path else None
    return field is not None and SecretStr in get_args(field.annotation)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models in a type: itself, or those of a list or a choice of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in get_args(annotation) for model in _models(each)]


def _kind(model: type[BaseModel]) -> Any:
    """What marks a model among those that a list may hold."""
    return model.model_fields["kind"].default if "kind" in model.model_fields else None


def _nearest(path: list[str], prefix: str, config_type: type[BaseModel]) -> str:
    """'; did you mean X?' for a key that is not one, or the keys allowed there."""
    fields = config_type.model_fields
    chosen: list[type[BaseModel]] = []
    for part in path[:-1]:
        if part.isdigit():
            continue  # a place in a list; the kind of what stands there is the next part
        chosen = (
            _models(fields[part].annotation) if part in fields else [each for each in chosen if _kind(each) == part]
        )
        fields = chosen[0].model_fields if len(chosen) == 1 else {}
    if len(path) > 1 and len(chosen) != 1:
        return ""
    stem = ".".join([*([prefix] if prefix else []), *path[:-1]])
    near = (
        difflib.get_close_matches(path[-1], fields, n=1, cutoff=0.5)
        or [name for name in fields if path[-1] in name or name in path[-1]][:1]
    )
    if near:
        return f"; did you mean {stem + '.' if stem else ''}{near[0]}?"
    return f"; allowed: {', '.join(fields)}" if fields else "; no keys are allowed here"
