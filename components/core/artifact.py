"""The contract between stages: a directory whose manifest.json was written last.

A directory without a manifest does not exist. Writers fill a temporary sibling, fsync, rename; readers check what they
read. The digest of an artifact is the digest of its manifest without `run`, which alone holds times, hosts and
measurements: same inputs, same code, same seed, same digest.
"""

import hashlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.closure import code_digest, lock_digest
from components.core.config import StepConfig, digest_of
from components.core.errors import ArtifactError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
TEMPORARY = ".writing-"


class File(BaseModel):
    """One file of an artifact, relative to its directory. `rows` where it is a table or an array."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    bytes: int
    sha256: str
    rows: int | None = None


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

    @property
    def digest(self) -> str:
        """sha256 of everything but `run`, hex."""
        return digest_of(self.model_dump(mode="json", exclude={"run"}))

    @property
    def rows(self) -> int:
        """Rows of all files that have rows."""
        return sum(file.rows or 0 for file in self.files)


class Draft:
    """An artifact being written: put files under `path`, say rows, statistics and measurements."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, int] = {}
        self.statistics: dict[str, Any] = {}
        self.run: dict[str, Any] = {}
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
    started = time.time()
    try:
        yield draft
        draft.manifest = Manifest(
            stage=stage,
            config=config.model_dump(mode="json"),
            config_digest=config.digest,
            code_version=code_digest(code),
            lock_digest=lock_digest(),
            inputs=tuple(Input(stage=each.stage, digest=each.digest) for each in inputs),
            files=_seal(temporary, draft.rows),
            statistics=draft.statistics,
            run={"started_at": started, "seconds": time.time() - started, "host": socket.gethostname(), **draft.run},
        )
        write_file(temporary / MANIFEST, draft.manifest.model_dump_json(indent=1).encode())
        _replace_directory(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def read(path: Path, *, verify: bool = True) -> Manifest:
    """The manifest of the artifact at `path`, after checking every file against it.

    Raises ArtifactError that names the file, what was found and what was wanted. `verify=False` reads the manifest
    alone, for listings that touch no data.
    """
    try:
        manifest = Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{path}: no {MANIFEST}, so there is no artifact; run the stage that writes it: `dvc repro {path}`"
        ) from error
    except (OSError, ValidationError) as error:
        raise ArtifactError(f"{path / MANIFEST}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    if verify:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(lambda file: _check(path / file.path, file), manifest.files))
    return manifest


def _check(path: Path, wanted: File) -> None:
    """Raise ArtifactError unless the file has the bytes and the digest that its manifest states."""
    mend = "delete the directory and run the stage again"
    try:
        found_bytes = path.stat().st_size
        if found_bytes != wanted.bytes:
            raise ArtifactError(f"{path}: found {found_bytes} bytes, the manifest says {wanted.bytes}; {mend}")
        found = sha256_of(path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}), the manifest lists it; {mend}") from error
    if found != wanted.sha256:
        raise ArtifactError(f"{path}: found sha256 {found}, the manifest says {wanted.sha256}; {mend}")


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


def _seal(directory: Path, rows: dict[str, int]) -> tuple[File, ...]:
    """Hash and fsync every file below a directory, in the order of their paths."""
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    unknown = sorted(set(rows) - set(names))
    assert not unknown, f"rows stated for files that were not written: {unknown}"

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
