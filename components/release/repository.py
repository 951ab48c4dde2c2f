"""Git's plumbing below the environments: a bare mirror, no index, no working tree, and nothing that a commit can run.

Reads ask the remote anew, with its objects fetched into <state>/environments-mirror.git. What commits hold is not
trusted: sizes are asked before contents, links and submodules are no files, messages may be any bytes.
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.core.config import Settings, environment
from components.core.errors import ConfigError, OvernightError
from components.core.graph.closure import ROOT
from components.release.address import SCHEMES, parse_address
from components.release.config import ReleaseConfig

BRANCH = "refs/heads/main"
LOCAL = "environments.git"
TEMPLATES = ROOT / "infra" / "environments"
ATTEMPTS = 10
MAX_FILE_BYTES = 2**16
OVERTAKEN = re.compile(r"fetch first|non-fast-forward|cannot lock ref|failed to update ref|incorrect old value")
TIMEOUT_SECONDS = 60
_SUBJECT_CHARACTERS = 200
_KINDS = {"120000": "a symbolic link", "160000": "a submodule", "040000": "a folder"}


class Repository:
    """The environment repository, read and written through the mirror."""

    def __init__(self, settings: Settings, config: ReleaseConfig) -> None:
        state = settings.state.resolve()
        address = parse_address(settings.environments_url or str(state / LOCAL))
        self.url = address.url
        self.label = f"environment repository {self.url}"
        self.mirror = state / "environments-mirror.git"
        self.variables = _variables(config) | address.variables
        self._initialise(self.mirror)
        if settings.environments_url is None:
            self._initialise(Path(self.url))

    def head(self) -> str:
        """The commit that the branch points to now, with its objects in the mirror; an empty repository is seeded."""
        for _ in range(ATTEMPTS):
            commit = self._listed()
            if commit is None:
                templates = {each.name: each.read_text() for each in sorted(TEMPLATES.glob("*.yaml"))}
                self.push(self.write(templates, None, "Describe the environments\n\nNothing runs in them yet."))
                continue
            if not self._has(commit):
                self.git(
                    *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"),
                    *("--update-shallow", "--", self.url, BRANCH),
                )
            if self._has(commit):
                return commit
        raise OvernightError(f"{self.label}: {BRANCH} moved {ATTEMPTS} times while it was read; try again")

    def content(self, commit: str, path: str) -> bytes:
        """A file at a commit. Raises ConfigError for one that is absent, with what is there, no file, or too large."""
        entry = self.git("ls-tree", "-l", commit, "--", path).split()
        if not entry:
            names = ", ".join(self.files(commit)) or "nothing"
            raise ConfigError(f"{self.label}: no {path} at {commit[:12]}; there is {names}")
        mode, _, blob, size = entry[:4]
        if mode in _KINDS:
            raise ConfigError(f"{path} at {commit[:12]}: found {_KINDS[mode]}; needed a file")
        if int(size) > MAX_FILE_BYTES:
            raise ConfigError(f"{path} at {commit[:12]}: found {int(size):,} bytes; needed {MAX_FILE_BYTES:,} at most")
        return self._bytes("cat-file", "blob", blob)

    def files(self, commit: str) -> list[str]:
        """Names of the YAML files at the root of a commit, as many as a message bears."""
        listed = self.git("ls-tree", "-z", "--name-only", commit).split("\0")
        return [name for name in listed if name.endswith(".yaml") and name.isprintable()][:50]

    def changes(self, head: str, path: str) -> list[str]:
        """Commits after which the branch held another file than before, newest first; none for one it never held.

        What stood only on a branch that was merged never ran, and is passed over.
        """
        return self.git("rev-list", "--first-parent", head, "--", path).split()

    def subject(self, commit: str) -> str:
        """First line of a commit's message, as far as it can be shown."""
        text = self.git("log", "-1", "--no-show-signature", "--format=%s", commit).strip()
        return "".join(each if each.isprintable() else "?" for each in text)[:_SUBJECT_CHARACTERS]

    def write(self, files: Mapping[str, str], parent: str | None, message: str) -> str:
        """A new commit in the mirror: the parent's tree with these files put in, whatever stood in their place."""
        with tempfile.TemporaryDirectory(prefix="overnight-index-") as scratch:
            index = {"GIT_INDEX_FILE": f"{scratch}/index"}
            if parent:
                self.git("read-tree", parent, variables=index)
            for path, text in files.items():
                blob = self.git("hash-object", "-w", "--stdin", text=text).strip()
                entry = f"100644,{blob},{path}"
                self.git("update-index", "--add", "--replace", "--cacheinfo", entry, variables=index)
            tree = self.git("write-tree", variables=index).strip()
        parents = ["-p", parent] if parent else []
        return self.git("commit-tree", tree, *parents, text=message).strip()

    def push(self, commit: str) -> bool:
        """Move the branch to a commit that stands on its head. False when somebody else moved it first."""
        done = self._run("push", "--porcelain", "--", self.url, f"{commit}:{BRANCH}")
        output = f"{_text(done.stdout)}\n{_text(done.stderr)}"
        if done.returncode and not OVERTAKEN.search(output):
            raise self._failed("push", output)
        return done.returncode == 0

    def git(self, *arguments: str, text: str | None = None, variables: Mapping[str, str] | None = None) -> str:
        """Standard output of a Git command. Raises OvernightError with Git's own last line."""
        return _text(self._bytes(*arguments, text=text, variables=variables))

    def _listed(self) -> str | None:
        """The commit that the remote's branch points to. Git lists refs that end alike as well."""
        lines = self.git("ls-remote", "--", self.url, BRANCH).splitlines()
        return next((commit for commit, _, ref in (line.partition("\t") for line in lines) if ref == BRANCH), None)

    def _has(self, commit: str) -> bool:
        return self._run("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0

    def _bytes(self, *arguments: str, text: str | None = None, variables: Mapping[str, str] | None = None) -> bytes:
        done = self._run(*arguments, text=text, variables=variables)
        if done.returncode:
            raise self._failed(arguments[0], _text(done.stderr))
        return done.stdout

    def _failed(self, command: str, output: str) -> OvernightError:
        lines = [line for line in output.strip().splitlines() if re.match("(fatal:|error:|!)", line)] or ["no message"]
        return OvernightError(f"{self.label}: git {command} failed: {lines[0]}; check the address and the access to it")

    def _run(
        self, *arguments: str, text: str | None = None, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return _git(["-C", str(self.mirror), *arguments], {**self.variables, **(variables or {})}, text)

    def _initialise(self, path: Path) -> None:
        """An empty bare repository, unless there is one. Objects without a reference are kept: a head may need them."""
        if (path / "config").is_file() and (path / "HEAD").is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        done = _git(["init", "--quiet", "--bare", "--initial-branch=main", "--", str(path)], self.variables, None)
        if done.returncode:
            raise self._failed("init", _text(done.stderr))
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
    allowed = {"GIT_ALLOW_PROTOCOL": ":".join(SCHEMES), "GIT_TERMINAL_PROMPT": "0", "GIT_NO_REPLACE_OBJECTS": "1"}
    return {**inherited, **author, **allowed, "LC_ALL": "C"}


def _text(output: bytes) -> str:
    return output.decode(errors="replace")


def _git(
    arguments: Sequence[str], variables: Mapping[str, str], text: str | None
) -> subprocess.CompletedProcess[bytes]:
    """Run Git. Raises OvernightError when it is not installed or does not end in time."""
    try:
        return subprocess.run(
            ["git", *arguments],
            env=dict(variables),
            input=(text or "").encode(),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise OvernightError("git is not installed; it holds what runs where, install it") from error
    except subprocess.TimeoutExpired as error:
        raise OvernightError(f"git {arguments[2]} did not end in {TIMEOUT_SECONDS} s; check the repository") from error
