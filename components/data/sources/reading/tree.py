"""A tree of files, in a directory or a Git revision: which of them may become documents, and under which licence."""

import re
from collections.abc import Iterable

from components.data.documents.licences import from_text
from components.data.documents.path_patterns import Patterns, slashed
from components.data.documents.programming_languages import language_of
from components.data.sources.config import FilesSource

# LICENSE, COPYING.txt, LICENSE-MIT, MIT-LICENSE (Rails), BSD_LICENSE.txt, mit.LICENSE, LICENCES
LICENCE_FILE = re.compile(
    r"^(?:LICEN[SC]ES?|COPYING|UNLICEN[SC]E)(?:[-._ ][\w .-]*)?$"
    r"|^[\w.-]+[-._ ](?:LICEN[SC]E|COPYING)(?:\.(?:txt|md|rst))?$",
    re.IGNORECASE,
)
# The folder that holds a licence's text under its SPDX id, for what lies beside the folder (REUSE).
LICENCE_FOLDER = re.compile(r"^LICEN[SC]ES?$", re.IGNORECASE)
_REUSE_FILE = re.compile(r"^[A-Za-z0-9.+-]+\.(?:txt|md)$")
_LICENCE_SUFFIXES = (None, "markdown")
# A larger licence file is none that we know.
LICENCE_BYTES = 2_000_000


class PathFilter:
    """Which files of a tree a config wants, by their paths alone."""

    def __init__(self, config: FilesSource) -> None:
        self._include = Patterns.of_config(config.include) if config.include else None
        self._exclude = Patterns.of_config(config.exclude) if config.exclude else None

    def refusal(self, path: str) -> tuple[str, str] | None:
        """(reason, detail) of a file that is not wanted, by its path below the tree's root; None when it is."""
        path = slashed(path)
        if path.startswith(".") or "/." in path:
            return "hidden", ""
        if self._exclude and self._exclude.cover(path):
            return "excluded", ""
        if self._include and not self._include.cover(path):
            return "not_included", ""
        if language_of(path) is None:
            return "unknown_language", ""
        return None


def is_licence_file(name: str) -> bool:
    """Whether a file, by its name, holds the licence of what lies beside and below it."""
    return LICENCE_FILE.match(name) is not None and language_of(name) in _LICENCE_SUFFIXES


def governed_by(path: str) -> str | None:
    """The directory that a licence file speaks for, "" for the root; None for a file that is no licence file.

    That is its own, and for a file of a folder LICENSES the one that the folder lies in.
    """
    directory, _, name = path.rpartition("/")
    parent, _, folder = directory.rpartition("/")
    if LICENCE_FOLDER.match(folder) and (_REUSE_FILE.match(name) or is_licence_file(name)):
        return parent
    return directory if is_licence_file(name) else None


def declared_by(texts: Iterable[str]) -> str | None:
    """What the licence files of one directory declare together; None when there are none.

    Every one of them holds, since nothing says that one may choose; a text that is not known stands for itself.
    """
    licences = [(text, from_text(text)) for text in texts]
    unknown = next((text for text, spdx in licences if spdx is None), None)
    if unknown is not None:
        return unknown or "an empty licence file"
    return " AND ".join(sorted({str(spdx) for _, spdx in licences})) or None
