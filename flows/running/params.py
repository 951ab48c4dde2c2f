"""The whole of params.yaml as one tree, and profiles as the smallest difference from its defaults.

`--profile P` composes defaults and profiles/P.yaml into params.yaml (a visible diff, as `dvc exp run -S` makes one);
`--set KEY=VALUE` changes single values there. Importing this costs half a second: no area's config imports torch.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, create_model
from ruamel.yaml import YAML

from components.core import plain_yaml
from components.core.artifact import write_file
from components.core.config import StepConfig, read_yaml, validate
from components.core.errors import ConfigError
from components.core.graph.closure import ROOT
from components.core.graph.stages import read_stages
from components.data.config import CheckRawConfig, CleanConfig, IngestConfig
from components.evaluation.config import EvaluateConfig
from components.release.config import ReleaseConfig
from components.serving.config import ServingConfig
from components.tokens.config import VocabularyConfig
from components.training.config import PlanConfig, PretrainConfig, objection

PARAMS = Path("params.yaml")
PROFILES = Path("profiles")
SUITES = Path("components/evaluation/measures/suites")
HEADER = """\
# What the cycle does, one section per stage; where things live is in OVERNIGHT_* or .overnight/settings.toml.
# Composed {origin}; edit freely.
"""


class Params(StepConfig):
    """The sections of params.yaml that flows themselves read; `tree` adds those of every other stage."""

    ingest: IngestConfig = Field(default_factory=IngestConfig)
    check_raw: CheckRawConfig = Field(default_factory=CheckRawConfig)
    clean: CleanConfig = Field(default_factory=CleanConfig)
    vocabulary: VocabularyConfig = Field(default_factory=VocabularyConfig)
    plan: PlanConfig = Field(default_factory=PlanConfig)
    pretrain: PretrainConfig = Field(default_factory=PretrainConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    release: ReleaseConfig = Field(default_factory=ReleaseConfig)
    serving: ServingConfig = Field(default_factory=ServingConfig)


@cache
def tree() -> type[Params]:
    """params.yaml as a whole: one section per stage of dvc.yaml, `release` and `serving`."""
    stages = [each for each in read_stages(ROOT) if each.name not in Params.model_fields]
    sections: dict[str, Any] = {
        each.name: (each.config_type, Field(default_factory=each.config_type)) for each in stages
    }
    return create_model("Params", __base__=Params, __doc__=tree.__doc__, **sections)


def section_names() -> list[str]:
    """The stages in their order, and what comes after them."""
    stages = [each.name for each in read_stages(ROOT)]
    return stages + [name for name in tree().model_fields if name not in stages]


def defaults() -> Params:
    """The tree where nothing is configured."""
    return tree()()


def read_params(path: Path = PARAMS) -> Params:
    """The checked tree. Raises ConfigError with one line: file, key, what was found, what is allowed."""
    return checked(read_yaml(path), str(path))


def checked(value: Any, where: str) -> Params:
    """A parsed tree, each section checked, and those that have to agree. Raises ConfigError with one line."""
    params = validate(value, tree(), where)
    listed = {Path(each) for each in params.clean.decontaminate.suites}
    for suite in params.evaluate.functional.suites:
        if (path := SUITES / f"{suite}.jsonl") not in listed:
            raise ConfigError(
                f"{where}: clean.decontaminate.suites lacks {path}, which evaluate.functional.suites runs as {suite}; "
                "add it there, or models are measured on what they were trained on"
            )
    began_anew = params.pretrain.init_from is None  # a checkpoint's architecture is known when it has been read
    if began_anew and (reason := objection(params.pretrain, params.plan.architecture)):
        raise ConfigError(f"{where}: plan.architecture and pretrain.objectives do not fit: {reason}")
    return params


def profile_names(folder: Path = PROFILES) -> list[str]:
    """Names of the profiles that exist, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def compose(profile: str, folder: Path = PROFILES) -> str:
    """The text of params.yaml for a profile: every section and key, each with its description as a comment."""
    source = folder / f"{profile}.yaml"
    if not source.exists():
        raise ConfigError(f"profile {profile!r} does not exist; there are: {', '.join(profile_names(folder))}")
    origin = f"by `overnight cycle --profile {profile}` from the defaults and profiles/{profile}.yaml"
    return written(checked(read_yaml(source), str(source)), origin)


def written(params: "Params", origin: str) -> str:
    """The text of params.yaml for a checked tree; `origin` says in its head where it came from."""
    return HEADER.format(origin=origin) + _sections(params)


def _sections(params: Params) -> str:
    lines: list[str] = []
    for section in section_names():
        config: BaseModel = getattr(params, section)
        lines += ["", f"{section}:" if type(config).model_fields else f"{section}: {{}}", *_keys(config, "  ")]
    return "\n".join(lines) + "\n"


def _keys(config: BaseModel, indent: str) -> Iterator[str]:
    """A line for each key of a section, and below a group of keys a line for each of its own."""
    values = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        comment = f"  # {' '.join(field.description.split())}" if field.description else ""
        group = getattr(config, name)
        if isinstance(group, BaseModel):
            yield f"{indent}{name}:{comment}"
            yield from _keys(group, indent + "  ")
        elif isinstance(group, tuple) and any(isinstance(each, BaseModel) for each in group):
            yield f"{indent}{name}:{comment}"
            yield from (f"{indent}  - {_inline(_stated(each))}" for each in group)
        else:
            yield f"{indent}{name}: {_inline(values[name])}{comment}"


def _stated(entry: BaseModel) -> dict[str, Any]:
    """One entry of a list: its kind, and what differs from the defaults of this kind."""
    kind = {"kind": entry.kind} if hasattr(entry, "kind") else {}
    return kind | entry.model_dump(mode="json", exclude_defaults=True)


def _inline(value: Any) -> str:
    """One value in YAML's flow style, on one line."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 10**6
    target = io.StringIO()
    yaml.dump(value, target)
    return target.getvalue().removesuffix("...\n").strip()


def overridden(text: str, assignments: Sequence[str]) -> str:
    """The text of params.yaml with single values changed, its comments kept.

    Each assignment is SECTION.KEY=YAML_VALUE. Raises ConfigError with one line unless the whole tree is valid after.
    """
    document = plain_yaml.parse_commented(text, str(PARAMS))
    for assignment in assignments:
        key, separator, value_text = assignment.partition("=")
        if not separator or not key.strip():
            raise ConfigError(
                f"--set {plain_yaml.shown(assignment)}: needed SECTION.KEY=VALUE, "
                "e.g. --set clean.filters.max_mean_line_characters=80"
            )
        value = plain_yaml.parse(value_text, f"--set {plain_yaml.shown(assignment)}: the value")
        _assign(document, key.strip().split("."), value, plain_yaml.shown(assignment))
    checked(_plain(document), "--set" if assignments else str(PARAMS))
    if not assignments:
        return text
    yaml = YAML()
    yaml.width = 10**6
    target = io.StringIO()
    yaml.dump(document, target)
    return target.getvalue()


def requested(profile: str | None, hours: float | None, assignments: Sequence[str]) -> str:
    """The text that params.yaml is to have: a profile or the file as it is, with single values changed.

    Raises ConfigError with one line: file, key, what was found, what is allowed. Writes nothing.
    """
    if profile is None:
        read_params()
        text = plain_yaml.decode(PARAMS.read_bytes(), str(PARAMS))
    else:
        text = compose(profile)
    return overridden(text, [*assignments, *([f"plan.hours={hours}"] if hours is not None else [])])


def change(text: str) -> tuple[Params | None, Params]:
    """The parameters on disk (None where they cannot be read), and those of a text that is to take their place."""
    wanted = checked(plain_yaml.parse(text, str(PARAMS)), str(PARAMS))
    try:
        return read_params(), wanted
    except ConfigError:
        return None, wanted


def write_params(text: str) -> None:
    """Replace params.yaml; an equal file is left alone."""
    if not PARAMS.exists() or PARAMS.read_bytes() != text.encode():
        write_file(PARAMS, text.encode())


def _assign(document: Any, keys: list[str], value: Any, assignment: str) -> None:
    for key in keys[:-1]:
        if not isinstance(document.get(key), dict):
            names = ", ".join(document)
            raise ConfigError(f"--set {assignment}: {key} is not a section; there are: {names}")
        document = document[key]
    document[keys[-1]] = value


def _plain(value: Any) -> Any:
    """Round-trip YAML containers as plain ones."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value


if __name__ == "__main__":
    write_params(compose("smoke"))
