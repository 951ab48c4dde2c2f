"""The graph as DVC reads it: stage names in topological order, and which of them would run.

dvc.yaml is the only list of stages. DVC is asked in this process (a tenth of a second a stage); running one is left to
`dvc repro --single-item` in a process of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx
from dvc.exceptions import DvcException
from dvc.repo import Repo

from components.core import artifact, private
from components.core.closure import closure
from components.core.config import read_settings
from components.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of dvc.yaml. Paths are relative to the repository's root."""

    name: str
    command: str
    dependencies: tuple[str, ...]
    outputs: tuple[Path, ...]

    @property
    def module_path(self) -> Path:
        """The source file of the stage's module."""
        words = self.command.split()
        return Path(*words[words.index("-m") + 1].split(".")).with_suffix(".py")

    @property
    def output(self) -> Path:
        """The one artifact that the stage writes."""
        return self.outputs[0]


def _open(root: Path) -> Repo:
    """DVC's repository. The state folder is there first: DVC would make it, and open it to everybody, for its cache."""
    private.folder(read_settings().state)
    return Repo(str(root))


def read_graph(root: Path = Path()) -> list[Stage]:
    """All stages, each after those that it depends on; among equals in the order of dvc.yaml.

    Raises ConfigError with one line when dvc.yaml cannot be read.
    """
    try:
        with _open(root) as repo:
            graph = repo.index.graph
            order = {stage: position for position, stage in enumerate(repo.index.stages)}
            names = list(networkx.lexicographical_topological_sort(graph.reverse(), key=order.__getitem__))
            return [_stage(stage, Path(repo.root_dir)) for stage in names]
    except DvcException as error:
        raise ConfigError(f"dvc.yaml: {' '.join(str(error).split())}") from error


def _stage(stage: object, root: Path) -> Stage:
    return Stage(
        name=stage.name,  # type: ignore[attr-defined]
        command=stage.cmd,  # type: ignore[attr-defined]
        dependencies=tuple(each.def_path for each in stage.deps if each.def_path),  # type: ignore[attr-defined]
        outputs=tuple(Path(each.fs_path).relative_to(root) for each in stage.outs),  # type: ignore[attr-defined]
    )


def current_stages(stages: Sequence[Stage], root: Path = Path()) -> set[str]:
    """Names of the first stages, as far as all of them are as dvc.lock has them: command, parameters, dependencies,
    outputs. What comes after one that is not has to be asked about once that one ran."""
    current: set[str] = set()
    with _open(root) as repo, repo.lock:
        for each in stages:
            if repo.stage.load_one(name=each.name).changed():
                break
            current.add(each.name)
    return current


def stages_until(stages: Sequence[Stage], until: str | None) -> list[Stage]:
    """The stages up to and including one. Raises ConfigError when there is none of that name."""
    names = [each.name for each in stages]
    if until is None:
        return list(stages)
    if until not in names:
        raise ConfigError(f"--until {until}: not a stage; there are: {', '.join(names)}")
    return list(stages[: names.index(until) + 1])


def require_dependencies(stages: Sequence[Stage], name: str, paths: Sequence[str]) -> None:
    """Raise ConfigError unless a stage depends on each of some files that params.yaml names: DVC would not see one
    change."""
    listed = {path for stage in stages if stage.name == name for path in stage.dependencies}
    for path in paths:
        if path not in listed:
            raise ConfigError(f"dvc.yaml: stage {name} reads {path} and does not depend on it; add it to its deps")


def missing_dependencies(stage: Stage) -> list[str]:
    """Source files that the stage may execute and dvc.yaml does not list among its dependencies."""
    return sorted({path.as_posix() for path in closure(stage.module_path)} - set(stage.dependencies))


def output_manifest(stage: Stage) -> artifact.Manifest:
    """The manifest of what the stage wrote, unverified."""
    return artifact.read(stage.output, verify=False)


def cache_objects(root: Path = Path()) -> Path:
    """The folder of DVC's cache that holds files by their digests."""
    with _open(root) as repo:
        return Path(repo.cache.local.path)


def manifest_digest(path: Path) -> str:
    """The digest of the artifact at a path, unverified."""
    return artifact.read(path, verify=False).digest
