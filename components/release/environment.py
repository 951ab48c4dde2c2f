"""The environment repository: Git says what runs.

One file per environment on the branch `main`, for example production.yaml: model versions, their digests and their
weights. A change is a commit, pushed only if nobody pushed in between; a rollback is a commit that brings back the
state before. Nothing is ever forced, no working tree is kept, and every read asks the repository anew.
"""

import io
import re
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.core.closure import ROOT
from components.core.config import Settings, environment, validate
from components.core.errors import ConfigError, OvernightError
from components.release.config import ENVIRONMENT_NAME, ReleaseConfig

BRANCH = "refs/heads/main"
LOCAL = "environments.git"
TEMPLATES = ROOT / "infra" / "environments"
HEADER = "# What runs in {name}. A commit to this file is the only way to change it; the weights sum to 100.\n"
ATTEMPTS = 10
OVERTAKEN = re.compile(r"fetch first|non-fast-forward|cannot lock ref|failed to update ref|incorrect old value")
TIMEOUT_SECONDS = 60
FULL_WEIGHT = 100


class WeightedVersion(BaseModel):
    """A registered version and its share of the requests, in percent."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: int = Field(ge=1)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the model's manifest")
    weight: int = Field(ge=1, le=FULL_WEIGHT, description="percent of requests")


class EnvironmentFile(BaseModel):
    """The desired state of one environment. No versions at all is the state before the first promotion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    environment: str = Field(pattern=ENVIRONMENT_NAME)
    versions: tuple[WeightedVersion, ...]

    @model_validator(mode="after")
    def _weights_are_whole(self) -> Self:
        total = sum(each.weight for each in self.versions)
        if self.versions and total != FULL_WEIGHT:
            raise ValueError(f"the weights sum to {total}, needed {FULL_WEIGHT}")
        if len({each.version for each in self.versions}) != len(self.versions):
            raise ValueError("a version is listed twice, needed one line per version")
        return self

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
class Change:
    """One commit that changed an environment file, `at` in ISO 8601."""

    commit: str
    at: str
    author: str
    subject: str
    body: str


def read(settings: Settings, name: str, config: ReleaseConfig) -> Desired:
    """The desired state of an environment now.

    Raises ConfigError when the file is absent or cannot be used, OvernightError when the repository does not answer.
    """
    repository = _Repository(settings, config)
    head = repository.head()
    path = f"{name}.yaml"
    return Desired(file=_parse(repository.content(head, path), name), commit=repository.changes(head, path)[0])


def names(settings: Settings, config: ReleaseConfig) -> list[str]:
    """The environments that there are, sorted; none before the first release, and none is made by asking."""
    if settings.environments_url is None and not (settings.state / LOCAL).exists():
        return []
    repository = _Repository(settings, config)
    listed = repository.git("ls-tree", "--name-only", repository.head()).splitlines()
    return sorted(name.removesuffix(".yaml") for name in listed if re.fullmatch(r"[^/]+\.yaml", name))


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

    def edit(repository: _Repository, head: str) -> tuple[EnvironmentFile, str, str] | None:
        path = f"{name}.yaml"
        now = Desired(file=_parse(repository.content(head, path), name), commit=repository.changes(head, path)[0])
        wanted = change(now)
        return None if wanted == now.file else (wanted, subject, body)

    return _push(settings, name, config, edit, files or {})


def rollback(settings: Settings, name: str, config: ReleaseConfig, *, reason: str) -> Desired:
    """Bring back the last usable state that differs from the present one, by a new commit.

    Works too when the present file cannot be read. Like `git revert`, a second rollback undoes the first. Raises
    ConfigError when there is no state to go back to, OvernightError when somebody changes the environment meanwhile.
    """
    seen: list[str] = []

    def edit(repository: _Repository, head: str) -> tuple[EnvironmentFile, str, str]:
        path = f"{name}.yaml"
        newest, *older = repository.changes(head, path)
        seen.append(newest)
        if newest != seen[0]:
            raise OvernightError(f"{path}: {newest[:12]} was pushed during the rollback; look at it and decide again")
        present = _usable(repository, newest, path, name)
        for each in older:
            found = _usable(repository, each, path, name)
            if found is not None and found.versions and found != present:
                undone = repository.subject(newest)
                body = f"{reason}\n\nThis reverts commit {newest}\nand restores the state of {each}."
                return found, f'Revert "{undone}"', body
        raise ConfigError(f"{path}: no earlier state with a version to go back to; promote one first")

    return _push(settings, name, config, edit, {})


def history(settings: Settings, name: str, config: ReleaseConfig, limit: int = 50) -> list[Change]:
    """The commits that changed an environment, newest first."""
    repository = _Repository(settings, config)
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


def _parse(text: str, name: str) -> EnvironmentFile:
    """Raises ConfigError with one line for text that is no environment file of that name."""
    where = f"{name}.yaml"
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: found {type(value).__name__}; needed a mapping with environment and versions")
    file = validate(value, EnvironmentFile, where)
    if file.environment != name:
        raise ConfigError(f"{where}: environment is {file.environment!r}; needed {name!r}, the name of the file")
    return file


def _usable(repository: "_Repository", commit: str, path: str, name: str) -> EnvironmentFile | None:
    """The state at a commit, or None when nobody could have run it."""
    try:
        return _parse(repository.content(commit, path), name)
    except ConfigError:
        return None


def _push(
    settings: Settings,
    name: str,
    config: ReleaseConfig,
    edit: Callable[["_Repository", str], tuple[EnvironmentFile, str, str] | None],
    files: Mapping[str, str],
) -> Desired:
    """Commit on the newest head and push; on a lost race, edit again on the new head."""
    repository = _Repository(settings, config)
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
    return Desired(file=_parse(repository.content(head, path), name), commit=repository.changes(head, path)[0])


class _Repository:
    """Plumbing over a bare mirror: no index, no working tree and no reference of its own to get out of step."""

    def __init__(self, settings: Settings, config: ReleaseConfig) -> None:
        state = settings.state.resolve()
        self.url = settings.environments_url or str(state / LOCAL)
        self.label = f"environment repository {re.sub(r'//[^/@]+@', '//***@', self.url)}"
        self.mirror = state / "environments-mirror.git"
        self.variables = _variables(config)
        self._initialise(self.mirror)
        if settings.environments_url is None:
            self._initialise(Path(self.url))

    def head(self) -> str:
        """The commit that the branch points to now, with its objects in the mirror; an empty repository is seeded."""
        for _ in range(ATTEMPTS):
            listed = self.git("ls-remote", "--", self.url, BRANCH).split()
            if not listed:
                templates = {each.name: each.read_text() for each in sorted(TEMPLATES.glob("*.yaml"))}
                self.push(self.write(templates, None, "Describe the environments\n\nNothing runs in them yet."))
                continue
            if self._run("cat-file", "-e", f"{listed[0]}^{{commit}}").returncode:
                self.git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", self.url, BRANCH)
            if not self._run("cat-file", "-e", f"{listed[0]}^{{commit}}").returncode:
                return listed[0]
        raise OvernightError(f"{self.label}: {BRANCH} moved {ATTEMPTS} times while it was read; try again")

    def content(self, commit: str, path: str) -> str:
        """A file at a commit. Raises ConfigError that lists what is there when it is absent."""
        found = self._run("show", f"{commit}:{path}")
        if found.returncode:
            names = ", ".join(self.git("ls-tree", "--name-only", commit).split()) or "nothing"
            raise ConfigError(f"{self.label}: no {path} at {commit[:12]}; there is {names}")
        return found.stdout

    def changes(self, head: str, path: str) -> list[str]:
        """Commits that changed a file, newest first; at least one for a file that exists at `head`."""
        return self.git("log", "--format=%H", head, "--", path).split()

    def subject(self, commit: str) -> str:
        """First line of a commit's message."""
        return self.git("log", "-1", "--format=%s", commit).strip()

    def write(self, files: Mapping[str, str], parent: str | None, message: str) -> str:
        """A new commit in the mirror: the parent's tree with these files put in."""
        with tempfile.TemporaryDirectory(prefix="overnight-index-") as scratch:
            index = {"GIT_INDEX_FILE": f"{scratch}/index"}
            if parent:
                self.git("read-tree", parent, variables=index)
            for path, text in files.items():
                blob = self.git("hash-object", "-w", "--stdin", text=text).strip()
                self.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", variables=index)
            tree = self.git("write-tree", variables=index).strip()
        parents = ["-p", parent] if parent else []
        return self.git("commit-tree", tree, *parents, text=message).strip()

    def push(self, commit: str) -> bool:
        """Move the branch to a commit that stands on its head. False when somebody else moved it first."""
        done = self._run("push", "--porcelain", "--", self.url, f"{commit}:{BRANCH}")
        output = f"{done.stdout}\n{done.stderr}"
        if done.returncode and not OVERTAKEN.search(output):
            raise self._failed("push", output)
        return done.returncode == 0

    def git(self, *arguments: str, text: str | None = None, variables: Mapping[str, str] | None = None) -> str:
        """Standard output of a Git command. Raises OvernightError with Git's own last line."""
        done = self._run(*arguments, text=text, variables=variables)
        if done.returncode:
            raise self._failed(arguments[0], done.stderr)
        return done.stdout

    def _failed(self, command: str, output: str) -> OvernightError:
        lines = [line for line in output.strip().splitlines() if re.match("(fatal:|error:|!)", line)] or ["no message"]
        why = re.sub(r"//[^/@]+@", "//***@", lines[0])
        return OvernightError(f"{self.label}: git {command} failed: {why}; check the address and the access to it")

    def _run(
        self, *arguments: str, text: str | None = None, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return _git(["-C", str(self.mirror), *arguments], {**self.variables, **(variables or {})}, text)

    def _initialise(self, path: Path) -> None:
        """An empty bare repository, unless there is one. Objects without a reference are kept: a head may need them."""
        if (path / "config").is_file() and (path / "HEAD").is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        done = _git(["init", "--quiet", "--bare", "--initial-branch=main", str(path)], self.variables, None)
        if done.returncode:
            raise self._failed("init", done.stderr)
        _git(["-C", str(path), "config", "gc.auto", "0"], self.variables, None)


def _variables(config: ReleaseConfig) -> dict[str, str]:
    """Git's environment: the process's own without pointers to another repository, plus who commits."""
    names = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
    inherited = {name: value for name, value in environment().items() if name not in names}
    author = {
        f"GIT_{role}_{part}": value
        for role in ("AUTHOR", "COMMITTER")
        for part, value in (("NAME", config.author_name), ("EMAIL", config.author_email))
    }
    return {**inherited, **author, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def _git(arguments: Sequence[str], variables: Mapping[str, str], text: str | None) -> subprocess.CompletedProcess[str]:
    """Run Git. Raises OvernightError when it is not installed or does not end in time."""
    try:
        return subprocess.run(
            ["git", *arguments],
            env=dict(variables),
            input=text,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise OvernightError("git is not installed; it holds what runs where, install it") from error
    except subprocess.TimeoutExpired as error:
        raise OvernightError(f"git {arguments[2]} did not end in {TIMEOUT_SECONDS} s; check the repository") from error
