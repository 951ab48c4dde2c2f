"""The environment repository: Git says what runs.

One file per environment on the branch `main`, for example production.yaml: model versions, their digests and their
weights. A change is a commit, pushed only if nobody pushed in between; a rollback is a commit that brings back the
state before. Nothing is ever forced, no working tree is kept, and every read asks the repository anew.
"""

import io
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML

from components.core import plain_yaml
from components.core.config import Settings, validate
from components.core.errors import ConfigError, OvernightError
from components.release.config import ENVIRONMENT_NAME, ReleaseConfig
from components.release.repository import ATTEMPTS, LOCAL, MAX_FILE_BYTES, TEMPLATES, Repository
from components.serving.versions import WeightedVersion, WeightedVersions

HEADER = "# What runs in {name}. A commit to this file is the only way to change it; the weights sum to 100.\n"
MAX_ROLLBACK = 200


class EnvironmentFile(BaseModel):
    """The desired state of one environment. No versions at all is the state before the first promotion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    environment: str = Field(pattern=ENVIRONMENT_NAME)
    versions: WeightedVersions

    @property
    def champion(self) -> WeightedVersion | None:
        """The version with the largest weight, the newest of several; None before the first promotion."""
        return max(self.versions, key=lambda each: (each.weight, each.version), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """An environment file and the last commit that changed it."""

    file: EnvironmentFile
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored(Desired):
    """The state after a rollback; `passed_over` are the commits that could not be used, newest first, each with why."""

    passed_over: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One commit that changed an environment file, `at` in ISO 8601."""

    commit: str
    at: str
    author: str
    subject: str
    body: str


class Snapshot:
    """Every environment at the commit that the branch points to now.

    Raises OvernightError when the repository does not answer.
    """

    def __init__(self, settings: Settings, config: ReleaseConfig) -> None:
        self._repository = Repository(settings, config)
        self._head = self._repository.head()

    def names(self) -> list[str]:
        """The environments that there are, sorted."""
        listed = (name.removesuffix(".yaml") for name in self._repository.files(self._head))
        return sorted(name for name in listed if re.fullmatch(ENVIRONMENT_NAME, name))

    def read(self, name: str) -> Desired:
        """The desired state of an environment. Raises ConfigError when its file is absent or cannot be used."""
        try:
            return _state(self._repository, self._head, name)
        except ConfigError as error:
            mend = f"mend it by a commit, or `overnight rollback {name}` brings back the last usable state"
            raise ConfigError(f"{error}; {mend}") from error


def read(settings: Settings, name: str, config: ReleaseConfig) -> Desired:
    """The desired state of an environment now.

    Raises ConfigError when the file is absent or cannot be used, OvernightError when the repository does not answer.
    """
    require_slug(name)
    return Snapshot(settings, config).read(name)


def names(settings: Settings, config: ReleaseConfig) -> list[str]:
    """The environments that there are, sorted; none before the first release, and none is made by asking."""
    if settings.environments_url is None and not (settings.state / LOCAL).exists():
        return []
    return Snapshot(settings, config).names()


def require(settings: Settings, name: str, config: ReleaseConfig) -> None:
    """Raise ConfigError that lists the environments unless there is one of this name, or was before somebody removed
    its file."""
    require_slug(name)
    known = names(settings, config) or sorted(each.stem for each in TEMPLATES.glob("*.yaml"))
    if name not in known:
        repository = Repository(settings, config)
        if not repository.changes(repository.head(), f"{name}.yaml"):
            raise ConfigError(f"no environment {name}; there is {', '.join(known) or 'none'}")


def require_slug(name: str) -> None:
    """Raise ConfigError unless this can be the name of an environment, whatever else it might mean to Git."""
    if not re.fullmatch(ENVIRONMENT_NAME, name):
        needed = "small letters, digits and hyphens, such as production"
        raise ConfigError(f"environment {plain_yaml.shown(name)!r} is no name; needed {needed}")


def commit(
    settings: Settings,
    name: str,
    config: ReleaseConfig,
    *,
    change: Callable[[Desired], EnvironmentFile],
    subject: str,
    body: str,
    files: Mapping[str, str] | None = None,
) -> Desired:
    """Change an environment by one commit, and return the state after it.

    `change` gets the state that the commit will stand on, and is called again when somebody else pushed in between;
    it may raise to refuse. `files` are other files of the repository, path to text, that go with it. A change that
    changes nothing makes no commit. Raises ConfigError for an empty state.
    """

    def edit(repository: Repository, head: str) -> tuple[EnvironmentFile, str, str] | None:
        now = _state(repository, head, name)
        wanted = change(now)
        return None if wanted == now.file else (wanted, subject, body)

    return _push(settings, name, config, edit, files or {})


def rollback(settings: Settings, name: str, config: ReleaseConfig, *, reason: str) -> Restored:
    """Bring back the last usable state that differs from the present one, by a new commit.

    Works whatever the present file and its history hold: commits that cannot be used are passed over. Like `git
    revert`, a second rollback undoes the first. Raises ConfigError when there is no state to go back to,
    OvernightError when somebody changes the environment meanwhile.
    """
    seen: list[str] = []
    passed_over: list[str] = []

    def edit(repository: Repository, head: str) -> tuple[EnvironmentFile, str, str]:
        path = f"{name}.yaml"
        newest, *older = repository.changes(head, path) or [""]
        if not newest:
            known = ", ".join(repository.files(head)) or "nothing"
            raise ConfigError(f"{repository.label}: no {path}, nor was there one; there is {known}")
        seen.append(newest)
        if newest != seen[0]:
            raise OvernightError(f"{path}: {newest[:12]} was pushed during the rollback; look at it and decide again")
        passed_over.clear()
        present = _usable(repository, newest, name, passed_over)
        for each in older[:MAX_ROLLBACK]:
            earlier = _usable(repository, each, name, passed_over)
            if earlier is not None and earlier.versions and earlier != present:
                undone = repository.subject(newest)
                body = f"{reason}\n\nThis reverts commit {newest}\nand restores the state of {each}."
                return earlier, f'Revert "{undone}"', body
        unusable = f" ({len(passed_over)} cannot be used, the newest: {passed_over[0]})" if passed_over else ""
        raise ConfigError(f"{path}: no earlier state with a version to go back to{unusable}; promote one first")

    require_slug(name)
    desired = _push(settings, name, config, edit, {})
    return Restored(file=desired.file, commit=desired.commit, passed_over=tuple(passed_over))


def history(settings: Settings, name: str, config: ReleaseConfig, limit: int = 50) -> list[Change]:
    """The commits that changed an environment, newest first."""
    require_slug(name)
    repository = Repository(settings, config)
    separator, end = "\x1f", "\x1e"
    text = repository.git(
        *("log", f"--max-count={limit}", "--date=iso-strict", "--format=%H%x1f%cd%x1f%an%x1f%s%x1f%b%x1e"),
        *(repository.head(), "--", f"{name}.yaml"),
    )
    return [
        Change(commit=commit, at=at, author=author, subject=subject, body=body.strip())
        for record in text.split(end)
        if record.strip()
        for commit, at, author, subject, body in [record.strip("\n").split(separator)]
    ]


def render(file: EnvironmentFile) -> str:
    """An environment file as YAML text."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(file.model_dump(mode="json"), stream)
    return HEADER.format(name=file.environment) + stream.getvalue()


def _state(repository: Repository, head: str, name: str) -> Desired:
    """What the branch asks for. Raises ConfigError."""
    path = f"{name}.yaml"
    file = _parse(repository.content(head, path), name, head)
    return Desired(file=file, commit=repository.changes(head, path)[0])


def _parse(content: bytes, name: str, commit: str) -> EnvironmentFile:
    """Raises ConfigError with one line for what is no environment file of that name."""
    where = f"{name}.yaml at {commit[:12]}"
    value = plain_yaml.parse(content, where, max_bytes=MAX_FILE_BYTES)
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: found {type(value).__name__}; needed a mapping with environment and versions")
    file = validate(value, EnvironmentFile, where)
    if file.environment != name:
        raise ConfigError(f"{where}: environment is {file.environment!r}; needed {name!r}, the name of the file")
    return file


def _usable(repository: Repository, commit: str, name: str, passed_over: list[str]) -> EnvironmentFile | None:
    """The state at a commit; None when nobody could have run it, and a line that says why."""
    try:
        return _parse(repository.content(commit, f"{name}.yaml"), name, commit)
    except OvernightError as error:  # also of Git itself: an object that is damaged or was never fetched
        passed_over.append(str(error))
        return None


def _push(
    settings: Settings,
    name: str,
    config: ReleaseConfig,
    edit: Callable[["Repository", str], tuple[EnvironmentFile, str, str] | None],
    files: Mapping[str, str],
) -> Desired:
    """Commit on the newest head and push; on a lost race, edit again on the new head."""
    repository = Repository(settings, config)
    path = f"{name}.yaml"
    for attempt in range(ATTEMPTS):
        head = repository.head()
        edited = edit(repository, head)
        if edited is None:
            break
        file, subject, body = edited
        if not file.versions:
            raise ConfigError(f"{path}: no versions; an environment must not be emptied, promote another one instead")
        # Without an id of its own, the same change made twice in a second is one commit, and both pushes succeed.
        message = f"{subject}\n\n{body.strip()}\n\nChange-Id: {uuid.uuid4().hex}"
        new = repository.write({**files, path: render(file)}, head, message)
        if repository.push(new):
            return Desired(file=file, commit=new)
        time.sleep(0.05 * (attempt + 1))
    else:
        raise OvernightError(f"{repository.label}: {ATTEMPTS} pushes were overtaken by others; try again")
    return _state(repository, head, name)
