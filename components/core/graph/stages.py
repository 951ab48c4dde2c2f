"""What dvc.yaml says of each stage: its command, what it reads and writes, and in its `meta:` what it is.

The one list of stages. Whoever needs another stage's artifact asks for its kind (`writes`), never for a name or a
path, so that a stage is added, renamed or moved in dvc.yaml alone. What `${...}` stands for is left to DVC.
Covers: `cmd`, `params`, `deps`, `outs`, `meta`, `always_changed`.  Not covered: `foreach`, `matrix`, `wdir`.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core import plain_yaml
from components.core.config import StepConfig
from components.core.errors import ConfigError
from components.core.graph.reads import CODE

GRAPH = Path("dvc.yaml")


class Meta(BaseModel):
    """What a stage is, for whoever treats one stage otherwise than another."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    writes: str | None = Field(None, description="kind of its artifact, by which others ask for it")
    model: bool = Field(False, description="its artifact is a model")
    released: bool = Field(False, description="its model is what release takes")
    by_clock: bool = Field(False, description="ends when the clock says so; what it gets is decided when it starts")
    all_cores: bool = Field(False, description="trains in its own process, on all cores")
    survey: bool = Field(False, description="says what stages depend on beside artifacts; a cycle does it itself")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of dvc.yaml. Paths are relative to the repository's root."""

    name: str
    command: str
    dependencies: tuple[str, ...]
    outputs: tuple[Path, ...]
    meta: Meta = field(default_factory=Meta)

    @property
    def module(self) -> str:
        """The dotted name of the stage's module."""
        words = self.command.split()
        return words[words.index("-m") + 1]

    @property
    def module_path(self) -> Path:
        """The source file of the stage's module."""
        return Path(*self.module.split(".")).with_suffix(".py")

    @property
    def arguments(self) -> list[str]:
        """What the command says behind the module."""
        words = self.command.split()
        return words[words.index("-m") + 2 :]

    @property
    def config_type(self) -> type[StepConfig]:
        """The class of the stage's section: components.<area>.config.<Name>Config.

        Raises ConfigError when there is none.
        """
        area, name = ".".join(self.module.split(".")[:2]), self.name.title().replace("_", "") + "Config"
        config_type: type[StepConfig] | None = getattr(import_module(f"{area}.config"), name, None)
        if config_type is None:
            raise ConfigError(f"{GRAPH}: stage {self.name} has no parameters; add the class {name} to {area}.config")
        return config_type

    @property
    def output(self) -> Path:
        """The one artifact that the stage writes."""
        return self.outputs[0]

    @property
    def code(self) -> Path:
        """The file that says which code the stage runs."""
        return CODE / f"{self.name}.json"


class _Entry(BaseModel):
    """A stage as DVC has it; what else it may say is DVC's to check."""

    model_config = ConfigDict(extra="ignore")

    cmd: str
    deps: tuple[str | dict[str, Any], ...] = ()
    outs: tuple[str | dict[str, Any], ...] = ()
    meta: Meta = Meta()


def read_all(root: Path = Path()) -> list[Stage]:
    """All stages, each after those that it depends on; among equals in the order of dvc.yaml.

    Raises ConfigError with one line: the stage, what was found, what is allowed.
    """
    path = root / GRAPH
    content = plain_yaml.parse(plain_yaml.read(path, f"`git checkout {GRAPH}` brings it back"), str(GRAPH))
    entries = content.get("stages") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise ConfigError(f"{GRAPH}: found no stages; needed a mapping `stages:`")
    return _sorted([_stage(name, value) for name, value in entries.items()])


def read_stages(root: Path = Path()) -> list[Stage]:
    """The stages that are rows of a cycle, in their order. Raises ConfigError as `read_all` does."""
    return [each for each in read_all(root) if not each.meta.survey]


def writer(stages: Iterable[Stage], kind: str) -> Stage:
    """The stage that writes a kind of artifact. Raises ConfigError when none does, or several do."""
    writers = [each for each in stages if each.meta.writes == kind]
    if len(writers) != 1:
        names = ", ".join(each.name for each in writers) or "no stage"
        raise ConfigError(f"{GRAPH}: {names} writes {kind}; needed one stage with `meta: {{writes: {kind}}}`")
    return writers[0]


def released(stages: Iterable[Stage]) -> Stage:
    """The stage whose model release takes. Raises ConfigError unless there is one."""
    candidates = [each for each in stages if each.meta.released]
    if len(candidates) != 1:
        names = ", ".join(each.name for each in candidates) or "no stage"
        raise ConfigError(f"{GRAPH}: {names} makes the model to release; needed one with `meta: {{released: true}}`")
    return candidates[0]


def descendants(stages: Sequence[Stage], names: Iterable[str]) -> set[str]:
    """Some stages and all that read what they write, directly or not. `stages` in their order."""
    downstream = set(names)
    for each in stages:
        if any(_reads(each, other) for other in stages if other.name in downstream):
            downstream.add(each.name)
    return downstream


def _stage(name: str, value: Any) -> Stage:
    try:
        entry = _Entry.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, (name, *first["loc"])))
        reason = f"is wrong: {first['msg'][:1].lower()}{first['msg'][1:]}"
        if first["type"] == "extra_forbidden":
            allowed = difflib.get_close_matches(str(first["loc"][-1]), Meta.model_fields, n=1) or Meta.model_fields
            reason = f"is not a key; allowed: {', '.join(allowed)}"
        raise ConfigError(f"{GRAPH}: stages.{key} {reason}") from error
    return Stage(
        name=name,
        command=" ".join(entry.cmd.split()),
        dependencies=tuple(_paths(entry.deps)),
        outputs=tuple(Path(each) for each in _paths(entry.outs)),
        meta=entry.meta,
    )


def _paths(listed: Iterable[str | dict[str, Any]]) -> list[str]:
    """Paths of a list of DVC's, where one with options is a mapping of one key."""
    return [each if isinstance(each, str) else next(iter(each)) for each in listed]


def _reads(stage: Stage, other: Stage) -> bool:
    """Whether a stage depends on what another one writes."""
    read, written = map(Path, stage.dependencies), other.outputs
    return any(path.is_relative_to(each) or each.is_relative_to(path) for path in read for each in written)


def _sorted(stages: list[Stage]) -> list[Stage]:
    order: list[Stage] = []
    left = list(stages)
    while left:
        ready = next((each for each in left if not any(_reads(each, other) for other in left)), None)
        if ready is None:
            raise ConfigError(f"{GRAPH}: {', '.join(each.name for each in left)} depend on each other in a circle")
        order.append(ready)
        left.remove(ready)
    return order
