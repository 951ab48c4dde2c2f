"""What the sources hold, in one short text each that is another when a source has changed: with it the graph sees new
data, and a cycle that is started again takes it in.

Writes  a JSON object: label of the source -> fingerprint; the file is left alone while nothing changed
Covers: files by path, size and time; the commit a branch stands at; the objects below a prefix by key and ETag;
which distributions are installed.  Not covered: a file rewritten with its size and time kept.
"""

import hashlib
import importlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.core.artifact import write_file
from components.core.config import read_settings
from components.core.errors import OvernightError
from components.data.sources import git
from components.data.sources.config import (
    AnySource,
    CanarySource,
    DirectorySource,
    FeedbackSource,
    GitSource,
    HuggingFaceSource,
    JsonlSource,
    ParquetSource,
    PythonEnvironmentSource,
    S3Source,
)


def write(sources: Sequence[AnySource], out: Path) -> list[str]:
    """Write the fingerprints; returns a line for every source that could not be asked, which keeps its last one."""
    before: dict[str, str] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    fingerprints, notes = {}, []
    for source in sources:
        try:
            fingerprints[source.label] = fingerprint(source)
        except OvernightError as error:
            fingerprints[source.label] = before.get(source.label, "unknown")
            notes.append(f"source {source.label} could not be asked whether it changed: {error}")
    if fingerprints != before:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, (json.dumps(fingerprints, indent=1, sort_keys=True) + "\n").encode())
    return notes


def fingerprint(source: AnySource) -> str:
    """What the source holds now. Raises OvernightError when it cannot be asked."""
    match source:
        case PythonEnvironmentSource():
            return _digest([platform.python_version(), *_distributions()])
        case DirectorySource():
            return _files([source.path])
        case ParquetSource() | JsonlSource():
            return _files(source.paths)
        case FeedbackSource():
            return _files([source.path or str(read_settings().state / "feedback")])
        case GitSource():
            return _digest([git.standing(source)])
        case HuggingFaceSource():
            return source.revision or _files([source.dataset])
        case CanarySource():
            return "made here"
        case S3Source():
            listing: str = importlib.import_module("components.data.sources.s3").listing(source)
            return _digest([listing])


def _distributions() -> list[str]:
    """Names of the folders that installers leave beside each distribution; they hold its version."""
    folders = {Path(each) for each in sys.path if each}
    return sorted(entry.name for each in folders if each.is_dir() for entry in each.glob("*.dist-info"))


def _files(paths: Sequence[str]) -> str:
    """Path, size and time of change of every file below; a path that is not there counts as such."""
    lines = []
    for entry in paths:
        root = Path(entry)
        files = [str(root)] if root.is_file() else sorted(_below(str(root)))
        for path in files or ["nothing"]:
            try:
                status = Path(path).lstat()
            except OSError:
                lines.append(f"{entry}\0{path}\0absent")
            else:
                lines.append(f"{entry}\0{os.path.relpath(path, root)}\0{status.st_size}\0{status.st_mtime_ns}")
    return _digest(lines)


def _below(root: str) -> Iterator[str]:
    for directory, below, names in os.walk(root):
        below[:] = [name for name in below if name != ".git"]
        for name in names:
            yield f"{directory}/{name}"


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
