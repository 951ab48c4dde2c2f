"""The contract between stages: a directory whose manifest.json was written last.

A directory without a manifest does not exist. Writers fill a temporary sibling, fsync, rename; readers check what they
read: the files that the manifest lists, and that there are no others, since libraries read whatever lies in a folder.
The digest of an artifact is the digest of its manifest without `run` and `timed`, which alone hold times, hosts and
measurements: same inputs, same code, same seed, same digest.
Not covered: a file that changes after the check and before another reader opens it by its path.
"""

import errno
import fnmatch
import hashlib
import os
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from components.core.config import StepConfig, digest_of
from components.core.errors import ArtifactError, one_line
from components.core.graph.closure import code_of, digest_of_code, lock_digest

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
TEMPORARY = ".writing-"
MEND = "delete the directory and run the stage again"


class File(BaseModel):
    """One file of an artifact, relative to its directory. `rows` where it is a table or an array."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    bytes: int
    sha256: str
    rows: int | None = None

    @field_validator("path")
    @classmethod
    def _lies_inside(cls, path: str) -> str:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise ValueError(f"lists {path!r}, which lies outside; do not trust it")
        if path != str(pure) or path in ("", ".", MANIFEST) or "\\" in path or not path.isprintable():
            raise ValueError(f"lists {path!r}, which no stage writes; do not trust it")
        return path


class Input(BaseModel):
    """An artifact that this one was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    digest: str


class Manifest(BaseModel):
    """What an artifact is, what it was made from, and what is in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    stage: str
    config: dict[str, Any] = Field(description="parameters as used")
    config_digest: str
    code_version: str = Field(description="digest of the stage's module and of all that it imports here")
    lock_digest: str = Field(description="digest of requirements.lock")
    inputs: tuple[Input, ...]
    files: tuple[File, ...]
    statistics: dict[str, Any] = Field(description="counts and figures that depend on inputs, code and seed alone")
    run: dict[str, Any] = Field(description="times, hosts, measurements: no part of the digest")
    timed: tuple[File, ...] = Field(
        (), description="files that hold such: checked as others are, no part of the digest"
    )

    @model_validator(mode="after")
    def _paths_differ(self) -> Self:
        paths = {file.path for file in self.all_files}
        if len(paths) < len(self.all_files):
            raise ValueError("lists a file twice; do not trust it")
        folders = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
        if both := sorted(paths & folders):
            raise ValueError(f"lists {both[0]!r} as a file and as a folder; do not trust it")
        return self

    @property
    def digest(self) -> str:
        """sha256 of everything but `run` and `timed`, hex."""
        return digest_of(self.model_dump(mode="json", exclude={"run", "timed"}))

    @property
    def all_files(self) -> tuple[File, ...]:
        """What the directory holds beside the manifest."""
        return self.files + self.timed

    @property
    def rows(self) -> int:
        """Rows of all files that have rows."""
        return sum(file.rows or 0 for file in self.files)


class Draft:
    """An artifact being written: put files under `path`, say rows, statistics and measurements.

    `timed` names the files that hold times: they are no part of the digest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, int] = {}
        self.statistics: dict[str, Any] = {}
        self.run: dict[str, Any] = {}
        self.timed: set[str] = set()
        self.manifest: Manifest | None = None


@contextmanager
def create(out: Path, *, stage: str, config: StepConfig, inputs: Sequence[Manifest], code: Path) -> Iterator[Draft]:
    """Write the artifact `out` as a whole or not at all.

    `code` is the stage module's `__file__`. On a clean exit every file is hashed and fsynced, the manifest is written
    last, and the directory takes the place of an older one; on an exception the temporary directory is removed and
    the older one stays. Leftovers of killed writers of the same artifact are cleared first.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    for leftover in out.parent.glob(f".{out.name}{TEMPORARY}*"):
        shutil.rmtree(leftover)
    temporary = out.parent / f".{out.name}{TEMPORARY}{uuid.uuid4().hex[:8]}"
    temporary.mkdir()
    draft = Draft(temporary)
    started, ran = time.time(), code_of(code)  # now: the file on disk may be another one when the stage ends
    try:
        yield draft
        sealed = _seal(temporary, draft.rows, draft.timed)
        draft.manifest = Manifest(
            stage=stage,
            config=config.model_dump(mode="json"),
            config_digest=config.digest,
            code_version=digest_of_code(ran),
            lock_digest=lock_digest(),
            inputs=tuple(Input(stage=each.stage, digest=each.digest) for each in inputs),
            files=tuple(file for file in sealed if file.path not in draft.timed),
            statistics=draft.statistics,
            run={
                "started_at": started,
                "seconds": time.time() - started,
                "host": socket.gethostname(),
                "code": ran,
                **draft.run,
            },
            timed=tuple(file for file in sealed if file.path in draft.timed),
        )
        write_file(temporary / MANIFEST, draft.manifest.model_dump_json(indent=1).encode())
        _replace_directory(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def read(path: Path, *, verify: bool = True) -> Manifest:
    """The manifest of the artifact at `path`, after checking that its files, and no others, are as it says.

    Raises ArtifactError that names the file, what was found and what was wanted. `verify=False` reads the manifest
    alone, for listings that touch no data.
    """
    try:
        manifest = Manifest.model_validate_json(_own_bytes(path / MANIFEST))
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{path}: no {MANIFEST}, so there is no artifact; run the stage that writes it: `dvc repro {path}`"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the manifest"
        reason = one_line(first["msg"].removeprefix("Value error, "), 300)
        raise ArtifactError(f"{path / MANIFEST}: cannot be read: {place}: {reason}; {MEND}") from error
    except OSError as error:
        raise ArtifactError(f"{path / MANIFEST}: cannot be read ({error.strerror}); {MEND}") from error
    if verify:
        _require_no_others(path, manifest)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(lambda file: _check(path / file.path, file), manifest.all_files))
    return manifest


def files(directory: Path, pattern: str) -> list[Path]:
    """Files at the top of an artifact that match a glob, by name: those that its manifest lists, and no others.

    Of a draft, which has no manifest yet, those that are there.
    """
    if (directory / MANIFEST).exists():
        names = [file.path for file in read(directory, verify=False).all_files]
    else:
        names = [name for name, entry in _entries(directory) if _kind(entry) == "file"]
    return [directory / name for name in sorted(names) if "/" not in name and fnmatch.fnmatchcase(name, pattern)]


def _own_bytes(path: Path) -> bytes:
    """The bytes of a file that is no link. Raises OSError, also for a pipe or a device, which would not end."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(errno.EINVAL, "it is no file of its own")
    return path.read_bytes()


def _entries(directory: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below a directory, by its path from there, a folder before what is in it. Follows no link."""
    folders = [PurePosixPath()]
    while folders:
        folder = folders.pop()
        with os.scandir(directory / folder) as entries:
            for entry in entries:
                yield str(folder / entry.name), entry
                if entry.is_dir(follow_symlinks=False):
                    folders.append(folder / entry.name)


def _require_no_others(directory: Path, manifest: Manifest) -> None:
    """Raise ArtifactError unless a directory holds the files of its manifest, folders for them, and nothing else."""
    listed = {MANIFEST, *(file.path for file in manifest.all_files)}
    folders = {str(parent) for name in listed for parent in PurePosixPath(name).parents}
    try:
        for name, entry in _entries(directory):
            kind = _kind(entry)
            if name not in (listed if kind == "file" else folders if kind == "folder" else ()):
                place = directory / (name if name.isprintable() else ascii(name))
                raise ArtifactError(f"{place}: a {kind} that the manifest does not list; remove it, or {MEND}")
    except OSError as error:
        raise ArtifactError(f"{error.filename}: cannot be read ({error.strerror}); {MEND}") from error


def _kind(entry: os.DirEntry[str]) -> str:
    """What an entry of a directory is, in words; a link is one, wherever it leads."""
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "pipe, socket or device"


def _check(path: Path, wanted: File) -> None:
    """Raise ArtifactError unless the file has the bytes and the digest that its manifest states."""
    try:
        num_bytes = path.lstat().st_size
        if num_bytes != wanted.bytes:
            raise ArtifactError(f"{path}: found {num_bytes} bytes, the manifest says {wanted.bytes}; {MEND}")
        digest = sha256_of(path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}), the manifest lists it; {MEND}") from error
    if digest != wanted.sha256:
        raise ArtifactError(f"{path}: found sha256 {digest}, the manifest says {wanted.sha256}; {MEND}")


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, hex."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def write_file(path: Path, content: bytes) -> None:
    """Replace a small file as a whole: aside, fsync, rename."""
    aside = path.with_name(f".{path.name}{TEMPORARY}{uuid.uuid4().hex[:8]}")
    try:
        with aside.open("wb") as target:
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _seal(directory: Path, rows: dict[str, int], timed: set[str]) -> tuple[File, ...]:
    """Hash and fsync every file below a directory, in the order of their paths."""
    kinds = {name: _kind(entry) for name, entry in _entries(directory)}
    assert {"file", "folder"} >= set(kinds.values()), f"an artifact has files of its own alone: {kinds}"
    names = sorted(name for name, kind in kinds.items() if kind == "file")
    unknown = sorted({*rows, *timed} - set(names))
    assert not unknown, f"stated of files that were not written: {unknown}"

    def seal(name: str) -> File:
        path = directory / name
        _sync(path)
        return File(path=name, bytes=path.stat().st_size, sha256=sha256_of(path), rows=rows.get(name))

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return tuple(pool.map(seal, names))


def _replace_directory(temporary: Path, out: Path) -> None:
    """Put a finished directory in the place of an older one; the older one goes only once the new one is whole."""
    _sync(temporary)
    if out.exists():
        old = out.parent / f".{out.name}{TEMPORARY}old-{uuid.uuid4().hex[:8]}"
        out.rename(old)
        temporary.rename(out)
        shutil.rmtree(old)
    else:
        temporary.rename(out)
    _sync(out.parent)


def _sync(path: Path) -> None:
    """fsync a file or a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
