"""Files below one directory: every file whose suffix stands for a language, under a stated or a detected licence.

Covers: patterns, .gitignore files at every depth, links (never followed: what they point to is taken in its own place
or is outside), devices, files that change, names that are not UTF-8, any number of files in bounded memory.
Not covered: archives, a user's own global ignore file.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import DataError
from components.core.text import readable
from components.data.documents.path_patterns import Patterns
from components.data.documents.programming_languages import language_of
from components.data.sources.config import DETECT, DirectorySource
from components.data.sources.reading.document_batch import Batch
from components.data.sources.reading.files import Left, SourceFile, read_content, read_files
from components.data.sources.reading.tree import LICENCE_BYTES, LICENCE_FOLDER, PathFilter, declared_by, governed_by

_GITIGNORE = ".gitignore"
_GITIGNORE_BYTES = 1_000_000


def read(config: DirectorySource) -> Iterator[Batch]:
    """Every wanted file. Raises DataError for a path that is no directory."""
    root = Path(config.path)
    if not root.is_dir():
        kind = "a file" if root.exists() else "nothing"
        raise DataError(f"ingest.sources: {config.path}: found {kind}, needed a directory; correct its path")
    return read_files(_Walk(config, os.path.realpath(root)).files(), max_document_bytes=config.max_document_bytes)


@dataclass(frozen=True, slots=True)
class _Place:
    """A directory to look into: its path below the root, and what the directories above it say."""

    path: str
    ignores: tuple[tuple[str, Patterns], ...]
    licence: str | None


class _Walk:
    def __init__(self, config: DirectorySource, root: str) -> None:
        self._config = config
        self._root = root
        self._path_filter = PathFilter(config)

    def files(self) -> Iterator[SourceFile | Left]:
        """Files and what is left, a directory at a time; holds one path for each directory that waits."""
        waiting = [_Place("", (), None if self._config.licence == DETECT else self._config.licence)]
        while waiting:
            place = self._entered(waiting.pop())
            try:
                with os.scandir(f"{self._root}/{place.path}") as entries:
                    for entry in entries:
                        path = f"{place.path}/{entry.name}" if place.path else entry.name
                        child = self._look(entry, path, place)
                        if isinstance(child, _Place):
                            waiting.append(child)
                        else:
                            yield child
            except OSError as error:
                yield f"{place.path}/", "unreadable", error.strerror or "OSError"

    def _look(self, entry: "os.DirEntry[str]", path: str, place: _Place) -> _Place | SourceFile | Left:
        if not path.isascii() and path != path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"):
            return path, "path_not_utf8", ""
        if entry.is_symlink():
            return self._link(path)
        is_directory = entry.is_dir(follow_symlinks=False)
        if is_directory and entry.name.startswith("."):
            return f"{path}/", "hidden", ""
        if ignored := _ignored(place.ignores, path, is_folder=is_directory):
            return f"{path}/" if is_directory else path, "gitignore", ignored
        if is_directory:
            return _Place(path, place.ignores, place.licence)
        if refusal := self._path_filter.refusal(path):
            return path, *refusal
        return SourceFile(
            location=f"{self._root}/{path}",
            path=path,
            package=self._config.package,
            version=self._config.version,
            licence=place.licence,
            language=language_of(path) or "unknown",
        )

    def _link(self, path: str) -> Left:
        target = os.path.realpath(f"{self._root}/{path}")
        if not Path(target).exists():
            return path, "link_broken", ""
        if os.path.commonpath([self._root, target]) != self._root:
            return path, "link_outside", "points out of the directory"
        return path, "link", "points to a file that is taken, or left, in its own place"

    def _entered(self, place: _Place) -> _Place:
        """The place with what its own .gitignore and licence files add."""
        directory = f"{self._root}/{place.path}"
        ignores, licence = place.ignores, place.licence
        if self._config.gitignore:
            content = read_content(f"{directory}/{_GITIGNORE}", _GITIGNORE_BYTES)
            if isinstance(content, bytes):
                ignores = (*ignores, (f"{place.path}/" if place.path else "", Patterns.of_file(content)))
        if self._config.licence == DETECT:
            licence = self._licence_in(directory) or licence
        return _Place(place.path, ignores, licence)

    def _licence_in(self, directory: str) -> str | None:
        """What the licence files of a directory, and those of a folder LICENSES in it, declare together."""
        paths = [f"{directory}/{name}" for name in _licence_files(directory, "")]
        contents = [read_content(path, LICENCE_BYTES) for path in paths]
        return declared_by(readable(each) if isinstance(each, bytes) else "" for each in contents)


def _licence_files(directory: str, below: str) -> list[str]:
    """Names of the licence files of a directory, and below its folder LICENSES, in their order; links are none."""
    names = []
    try:
        with os.scandir(f"{directory}/{below}") as entries:
            for each in entries:
                name = f"{below}{each.name}"
                if each.is_file(follow_symlinks=False) and governed_by(name) == "":
                    names.append(name)
                elif not below and each.is_dir(follow_symlinks=False) and LICENCE_FOLDER.match(each.name):
                    names += _licence_files(directory, f"{name}/")
    except OSError:
        return []
    return sorted(names)


def _ignored(ignores: tuple[tuple[str, Patterns], ...], path: str, *, is_folder: bool) -> str:
    """The .gitignore that leaves a path out, empty when none does; the nearest one that speaks of it decides."""
    for prefix, patterns in reversed(ignores):
        verdict = patterns.verdict(path[len(prefix) :], is_folder=is_folder)
        if verdict is not None:
            return f"{prefix}{_GITIGNORE}" if verdict else ""
    return ""
