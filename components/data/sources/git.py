"""Files of one revision of a Git repository, read out of a temporary bare one that holds this revision alone.

Covers: any https, ssh or file URL or local path, at a branch, a tag or a commit; the commit is the documents' version.
Where `history_commits` asks for them, the edits of the commits before it (git_history.py).
Nothing of the repository is run: no hooks, no filters, no submodules, no checkout, no program that its config names.
Nobody is asked for a password: Git's credential helpers and ssh's keys give it.
Not covered: contents kept elsewhere (submodules, Git LFS), which are left and counted.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import DataError
from components.core.text import readable
from components.data.documents.path_patterns import slashed
from components.data.documents.programming_languages import language_of
from components.data.sources.config import DETECT, GitSource
from components.data.sources.reading import git_history
from components.data.sources.reading.document_batch import Batch, left_rows
from components.data.sources.reading.files import Gathering, SourceFile, printable
from components.data.sources.reading.git_commands import AT_ONCE, contents, git, running
from components.data.sources.reading.tree import LICENCE_BYTES, PathFilter, declared_by, governed_by

_TEMPORARY = "overnight-git-"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MODES = {"120000": "link", "160000": "submodule"}


def read(config: GitSource) -> Iterator[Batch]:
    """Every wanted file of the revision. Raises DataError when it cannot be fetched."""
    path_filter = PathFilter(config)
    with _repository() as repository:
        commit = _fetch(repository, config)
        yield from _read_commit(repository, commit, config, path_filter)
        if config.history_commits:
            yield _read_history(repository, commit, config, path_filter)


def standing(config: GitSource) -> str:
    """The refs that the revision names and the commits they stand at now, as the remote says. Raises DataError when it
    does not answer."""
    if re.fullmatch(r"[0-9a-f]{40}", config.revision):
        return config.revision
    with _repository() as repository:
        return git(repository, "ls-remote", "--", _address(config), config.revision, timeout_seconds=60)


@contextmanager
def _repository() -> Iterator[Path]:
    """An empty bare repository that goes away afterwards; what killed runs left of theirs goes first."""
    for leftover in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*"):
        process = leftover.name.removeprefix(_TEMPORARY).split("-")[0]
        if process.isdigit() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(leftover, ignore_errors=True)  # another user's stays where it is
    with tempfile.TemporaryDirectory(prefix=f"{_TEMPORARY}{os.getpid()}-", ignore_cleanup_errors=True) as directory:
        path = Path(directory)
        git(path, "init", "--quiet", "--bare", "--template=", timeout_seconds=60)
        yield path


def _fetch(repository: Path, config: GitSource, depth: int = 1) -> str:
    """Fetch the one revision, without history unless `depth` is above 1; returns its commit."""
    url = _address(config)
    options = ("--quiet", f"--depth={depth}", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
    reference = "refs/overnight/source"
    try:
        git(
            repository,
            "fetch",
            *options,
            "--",
            url,
            f"+{config.revision}:{reference}",
            timeout_seconds=config.timeout_seconds,
        )
        return git(repository, "rev-parse", "--verify", f"{reference}^{{commit}}", timeout_seconds=60)
    except DataError as error:
        raise DataError(
            f"ingest.sources: {config.url} at {config.revision}: {error}; needed an https, ssh or file URL, or a path, "
            "and a branch, a tag or a commit of 40 digits"
        ) from error


def _address(config: GitSource) -> str:
    """The URL of the repository; a path of this machine as one."""
    local = Path(config.url)
    return local.resolve().as_uri() if local.exists() else config.url


@dataclass(frozen=True, slots=True)
class _Blob:
    mode: str
    digest: str
    size: int
    path: str


def _blobs(repository: Path, commit: str) -> Iterator[_Blob]:
    """Every entry of the commit's tree, as git lists it, without holding the list."""
    with running(repository, "ls-tree", "-r", "-z", "-l", "--full-tree", commit) as process:
        assert process.stdout is not None
        rest = b""
        while chunk := process.stdout.read(1 << 16):
            *whole, rest = (rest + chunk).split(b"\0")
            for line in whole:
                facts, path = line.split(b"\t", 1)
                mode, _, digest, size = facts.decode().split()
                yield _Blob(mode, digest, 0 if size == "-" else int(size), os.fsdecode(path))


def _read_commit(repository: Path, commit: str, config: GitSource, path_filter: PathFilter) -> Iterator[Batch]:
    files = _files(repository, commit, config)
    gathering = Gathering()
    queue: list[_Blob] = []
    with running(repository, "cat-file", "--batch") as reader:
        for blob in _blobs(repository, commit):
            if refusal := _refusal(blob, config, path_filter):
                gathering.leave(blob.path, *refusal)
            else:
                queue.append(blob)
            if len(queue) >= AT_ONCE:
                yield from _gather(reader, queue, files, gathering)
                queue = []
            if gathering.is_full:
                yield gathering.batch()
        yield from _gather(reader, queue, files, gathering)
    yield gathering.batch()


def _read_history(repository: Path, commit: str, config: GitSource, path_filter: PathFilter) -> Batch:
    """The edits of the last commits. A history that cannot be fetched or read is left, and its files are not."""
    try:
        _fetch(repository, config, config.history_commits + 1)
        changes = git_history.read(repository, commit, path_filter, most=config.history_commits)
        return git_history.batch(changes, _files(repository, commit, config).file)
    except DataError as error:
        return Batch(left=left_rows([("", "history_unreadable", str(error))]))


def _files(repository: Path, commit: str, config: GitSource) -> "_Files":
    stated: dict[str, str | None] = {"": config.licence}
    licences = _licences(repository, commit) if config.licence == DETECT else stated
    return _Files(config.package or package_of(config.url), commit, licences)


def _refusal(blob: _Blob, config: GitSource, path_filter: PathFilter) -> tuple[str, str] | None:
    """(reason, detail) of an entry that is not read at all."""
    if blob.mode in _MODES:
        return _MODES[blob.mode], ""
    if printable(blob.path) != blob.path:
        return "path_not_utf8", ""
    if refusal := path_filter.refusal(blob.path):
        return refusal
    if blob.size > config.max_document_bytes:
        return "too_large", f"{blob.size} bytes, allowed {config.max_document_bytes}"
    return None


@dataclass(frozen=True, slots=True)
class _Files:
    """What is said of every file of the commit; `licences` by directory."""

    package: str
    commit: str
    licences: dict[str, str | None]

    def file(self, path: str) -> SourceFile:
        directory = slashed(path).rpartition("/")[0]
        while directory not in self.licences and directory:
            directory = directory.rpartition("/")[0]
        return SourceFile(
            location="",
            path=path,
            package=self.package,
            version=self.commit,
            licence=self.licences.get(directory),
            language=language_of(path) or "unknown",
        )


def _gather(
    reader: "subprocess.Popen[bytes]", blobs: list[_Blob], files: _Files, gathering: Gathering
) -> Iterator[Batch]:
    """Read some blobs into the batch at hand, and yield it whenever it is full."""
    for blob, content in zip(blobs, contents(reader, [blob.digest for blob in blobs]), strict=True):
        if content.startswith(_LFS_POINTER):
            gathering.leave(blob.path, "lfs_pointer", "the content is in Git LFS")
        else:
            gathering.add(files.file(blob.path), content)
        if gathering.is_full:
            yield gathering.batch()


def _licences(repository: Path, commit: str) -> dict[str, str | None]:
    """What the licence files of each directory that has any declare together."""
    by_directory: dict[str, list[_Blob]] = {}
    for blob in _blobs(repository, commit):
        directory = governed_by(slashed(blob.path))
        if directory is not None and blob.mode not in _MODES:
            by_directory.setdefault(directory, []).append(blob)
    declared = {}
    with running(repository, "cat-file", "--batch") as reader:
        for directory, blobs in by_directory.items():
            small = [blob for blob in blobs if blob.size <= LICENCE_BYTES][:AT_ONCE]
            texts = [readable(content) for content in contents(reader, [blob.digest for blob in small])]
            declared[directory] = declared_by([*texts, *[""] * (len(blobs) - len(small))])
    return declared


def package_of(url: str) -> str:
    """The owner and name at the end of a repository's address; the name alone of one that lies here."""
    address = re.match(r"^(?:https?|ssh)://[^/]+/(.+)$|^[^/:]+@[^/:]+:(.+)$", url)
    if address is None:
        return Path(url.removeprefix("file://")).resolve().name.removesuffix(".git")
    path = (address[1] or address[2]).rstrip("/").removesuffix(".git")
    return "/".join(path.split("/")[-2:])
