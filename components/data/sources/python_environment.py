"""The Python sources at hand: the standard library, and the installed distributions, each under its licence.

Reads   .py files of the running interpreter's standard library and of the distributions in its site-packages
Covers: a licence per distribution; paths relative to the library or to site-packages; a file that several
distributions ship belongs to the first by name, under the licences of all.
Not covered: files that no distribution recorded, scripts and finders that an installer generates (they hold the
environment's path), and the interpreter's own test suite, which some systems package apart.
"""

import csv
import importlib.metadata
import os
import re
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import one_line
from components.core.text import readable
from components.data.documents.licences import declare, from_text, is_text
from components.data.sources.config import PythonEnvironmentSource
from components.data.sources.reading.document_batch import Batch
from components.data.sources.reading.files import Left, SourceFile, read_files

STANDARD_LIBRARY = "python"
_STANDARD_LICENCE = "PSF-2.0"
# Ours would train the model on its own cleaning rules, and differs between two checkouts.
_OWN_DISTRIBUTION = "overnight"
_NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})
_GENERATED_PREFIXES = ("__editable__", "_sysconfigdata_")
_LICENCE_FILE = re.compile(r"^[^/]+\.dist-info/(?:.*/)?[^/]*(?:LICEN[SC]E|COPYING)[^/]*$", re.IGNORECASE)


def read(config: PythonEnvironmentSource) -> Iterator[Batch]:
    """Every .py file that has an owner, the standard library first, then the distributions."""
    # Installers may link files from a cache, so links are followed here: the environment is its own user's.
    return read_files(find(), max_document_bytes=config.max_document_bytes, follow_links=True)


def find() -> Iterator[SourceFile | Left]:
    """The files, each with its owner and what that owner declares of its licence, and owners that cannot be read."""
    yield from _standard_library()
    yield from _distributions()


def _standard_library() -> Iterator[SourceFile]:
    root = sysconfig.get_path("stdlib")
    version = sysconfig.get_python_version()
    for directory, below, names in os.walk(root):
        below[:] = [name for name in below if name not in _NOT_LIBRARY]
        for name in names:
            if name.endswith(".py") and not name.startswith(_GENERATED_PREFIXES):
                location = f"{directory}/{name}"
                yield SourceFile(
                    location=location,
                    path=os.path.relpath(location, root),
                    package=STANDARD_LIBRARY,
                    version=version,
                    licence=_STANDARD_LICENCE,
                    language="python",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Distribution:
    """What an installed distribution says of itself; `recorded` are its files, relative to `root`."""

    name: str
    version: str
    licence: str | None
    root: str
    recorded: list[str]


def _distributions() -> Iterator[SourceFile | Left]:
    places = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    named: dict[str, _Distribution] = {}
    for each in importlib.metadata.distributions(path=places):
        try:
            distribution = _read(each)
        except (OSError, ValueError, csv.Error) as error:
            yield _folder(each), "unreadable_metadata", one_line(error)
        else:
            if distribution is None:
                yield _folder(each), "unreadable_metadata", "it lacks a name or a version"
            else:
                named.setdefault(distribution.name, distribution)
    named.pop(_OWN_DISTRIBUTION, None)
    owned: dict[str, SourceFile] = {}
    for _, distribution in sorted(named.items()):
        for path in distribution.recorded:
            if _is_source(path):
                first = owned.get(path)
                owned[path] = SourceFile(
                    location=first.location if first else f"{distribution.root}/{path}",
                    path=path,
                    package=first.package if first else distribution.name,
                    version=first.version if first else distribution.version,
                    licence=_together(first.licence, distribution.licence) if first else distribution.licence,
                    language="python",
                )
    yield from owned.values()


def _read(distribution: importlib.metadata.Distribution) -> _Distribution | None:
    """What a distribution says; None without a name or a version. Raises OSError, ValueError or csv.Error."""
    metadata = distribution.metadata  # parsed anew at each access, and long with a whole README in it
    name, version = metadata.get("Name"), metadata.get("Version")  # type: ignore[attr-defined]
    if not name or not version:
        return None
    recorded = _recorded(distribution)
    return _Distribution(
        name=name.lower().replace("_", "-"),
        version=version,
        licence=_licence(distribution, metadata, recorded),
        root=str(distribution.locate_file("")),
        recorded=recorded,
    )


def _folder(distribution: importlib.metadata.Distribution) -> str:
    """The folder that an installer left of a distribution."""
    return Path(getattr(distribution, "_path", "a distribution")).name


def _recorded(distribution: importlib.metadata.Distribution) -> list[str]:
    """Paths of the files that a distribution recorded, relative to site-packages.

    Read here, since importlib.metadata makes an object with a hash of every one: two seconds for an environment.
    """
    record = distribution.read_text("RECORD")
    if record is None:
        return [path.as_posix() for path in distribution.files or []]
    return [row[0] for row in csv.reader(record.splitlines()) if row]


def _is_source(path: str) -> bool:
    """Whether a recorded path is a .py file below site-packages, not put elsewhere or generated by an installer."""
    return path.endswith(".py") and not path.startswith(("/", *_GENERATED_PREFIXES)) and ".." not in path.split("/")


def _together(first: str | None, second: str | None) -> str | None:
    """The licence of a file that two distributions ship: that of both; None when either declares none."""
    if first is None or second is None or first == second:
        return first if first == second else None
    ids = [(from_text(each) or each) if is_text(each) else each for each in (first, second)]
    unknown = next((each for each in ids if is_text(each)), None)
    return unknown or " AND ".join(f"({each})" if " " in each else each for each in ids)


def _licence(
    distribution: importlib.metadata.Distribution,
    metadata: importlib.metadata.PackageMetadata,
    recorded: Sequence[str],
) -> str | None:
    return declare(
        expression=next(iter(metadata.get_all("License-Expression") or []), None),
        field=next(iter(metadata.get_all("License") or []), None),
        classifiers=[each for each in metadata.get_all("Classifier") or [] if each.startswith("License ::")],
        texts=_licence_texts(distribution, recorded),
    )


def _licence_texts(
    distribution: importlib.metadata.Distribution, recorded: Sequence[str]
) -> Callable[[], Sequence[str]]:
    """Reads the licence files that a distribution ships beside its metadata, when asked."""

    def read_texts() -> list[str]:
        paths = sorted(path for path in recorded if _LICENCE_FILE.match(path) and ".." not in path.split("/"))
        locations = [Path(str(distribution.locate_file(path))) for path in paths]
        return [readable(location.read_bytes()) for location in locations if location.is_file()]

    return read_texts
