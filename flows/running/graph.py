"""Which stages of the graph (components.core.graph.stages) DVC would run, and why.

DVC is asked in this process (a tenth of a second a stage); running one is left to `dvc repro --single-item` in a
process of its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from components.core import artifact, private
from components.core.config import read_settings
from components.core.errors import ArtifactError, ConfigError, one_line
from components.core.graph.closure import ROOT, code_of
from components.core.graph.stages import Stage, descendants

# Of the files that changed, so many are named.
SHOWN_FILES = 3


def _open(root: Path) -> Repo:
    """DVC's repository. The state folder is there first: DVC would make it, and open it to everybody, for its cache."""
    private.folder(read_settings().state)
    return Repo(str(root))


def current_stages(stages: Sequence[Stage], root: Path = Path()) -> set[str]:
    """Names of the first stages, as far as all of them are as dvc.lock has them: command, parameters, dependencies,
    outputs. What comes after one that is not has to be asked about once that one ran."""
    current: set[str] = set()
    try:
        with _open(root) as repo, repo.lock:
            for each in stages:
                if repo.stage.load_one(name=each.name).changed():
                    break
                current.add(each.name)
    except DvcException as error:
        raise ConfigError(f"dvc.yaml: {one_line(error)}") from error
    return current


def stages_until(stages: Sequence[Stage], until: str | None) -> list[Stage]:
    """The stages up to and including one. Raises ConfigError when there is none of that name."""
    names = [each.name for each in stages]
    if until is None:
        return list(stages)
    if until not in names:
        raise ConfigError(f"--until {until}: not a stage; there are: {', '.join(names)}")
    return list(stages[: names.index(until) + 1])


def runs_again(stages: Sequence[Stage]) -> str | None:
    """One line: which of the stages run again since their code is another one than what wrote their artifacts, and
    which files changed. None when there are none. What they replace stays in DVC's cache."""
    changed: dict[str, list[str]] = {}
    old_layout = False
    for each in stages:
        try:
            wrote = output_manifest(each).run.get("code")
        except ArtifactError:
            continue  # it runs since its artifact is not there
        runs = code_of(ROOT / each.module_path)
        old_layout = old_layout or wrote is None
        if wrote != runs:
            changed[each.name] = _differences(wrote or {}, runs)
    if not changed:
        return None
    first, *later = [each.name for each in stages if each.name in descendants(stages, changed)]
    who = first if not later else f"{first} and {len(later)} later stage{'s' if len(later) > 1 else ''}"
    verb = "run" if later else "runs"
    if old_layout:
        whose = "their artifacts do" if later else "its artifact does"
        return f"{who} {verb} again: {whose} not say which code wrote {'them' if later else 'it'} (an older layout)"
    files = list(dict.fromkeys(file for names in changed.values() for file in names))
    more = f" and {len(files) - SHOWN_FILES} more" if len(files) > SHOWN_FILES else ""
    return f"{who} {verb} again: {', '.join(files[:SHOWN_FILES])}{more} changed"


def _differences(wrote: Mapping[str, str], runs: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*wrote, *runs} if wrote.get(name) != runs.get(name))


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
