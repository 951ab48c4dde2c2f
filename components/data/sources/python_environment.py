"""The Python sources at hand: the standard library, and installed distributions under permissive licences.

Reads   .py files of the running interpreter's standard library and of the distributions in its site-packages
Covers: a licence per distribution; paths relative to the library or to site-packages; files that several
distributions ship, left unless every one of them is permissive.
Not covered: files that no distribution recorded, scripts and finders that an installer generates (they hold the
environment's path), and the interpreter's own test suite, which some systems package apart.
"""

import importlib.metadata
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from components.data.config import IngestConfig
from components.data.licences import RefusedError, normalise
from components.data.sources.files import Found, SourceFile

STANDARD_LIBRARY = "python"
_STANDARD_LICENCE = "PSF-2.0"
# Ours would train the model on its own cleaning rules, and differs between two checkouts.
_OWN_DISTRIBUTION = "overnight"
_NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})
_GENERATED_PREFIXES = ("__editable__", "_sysconfigdata_")
_LICENCE_PREFIXES = ("LICENSE", "LICENCE", "COPYING")


def find(config: IngestConfig) -> Found:
    """Every .py file that may be used, the standard library first, then distributions by name."""
    left: Counter[str] = Counter()
    files = [*_standard_library(), *_distributions(config.licences, left)]
    return Found(files=files, left=left)


def _standard_library() -> Iterator[SourceFile]:
    root = Path(sysconfig.get_path("stdlib"))
    version = sysconfig.get_python_version()
    for location in sorted(root.rglob("*.py")):
        relative = location.relative_to(root)
        if not _NOT_LIBRARY.intersection(relative.parts) and not location.name.startswith(_GENERATED_PREFIXES):
            yield SourceFile(
                location=location,
                path=relative.as_posix(),
                package=STANDARD_LIBRARY,
                version=version,
                licence=_STANDARD_LICENCE,
                language="python",
            )


def _distributions(allowed: tuple[str, ...], left: Counter[str]) -> list[SourceFile]:
    """Files of permissive distributions; the files of the others are counted in `left` under the reason."""
    places = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    named: dict[str, tuple[importlib.metadata.Distribution, importlib.metadata.PackageMetadata]] = {}
    for distribution in importlib.metadata.distributions(path=places):
        metadata = distribution.metadata  # parsed anew at each access, and long with a whole README in it
        named.setdefault(metadata["Name"].lower().replace("_", "-"), (distribution, metadata))
    named.pop(_OWN_DISTRIBUTION, None)
    owned: dict[str, SourceFile] = {}
    refused: dict[str, str] = {}
    for name, (distribution, metadata) in sorted(named.items()):
        try:
            licence = _licence(distribution, metadata, allowed)
        except RefusedError as reason:
            refused.update(dict.fromkeys(_python_files(distribution), str(reason)))
            continue
        for path in _python_files(distribution):
            file = SourceFile(
                location=Path(str(distribution.locate_file(path))),
                path=path,
                package=name,
                version=metadata["Version"],
                licence=licence,
                language="python",
            )
            owned.setdefault(path, file)
    left.update(refused.values())
    return [file for path, file in sorted(owned.items()) if path not in refused]


def _python_files(distribution: importlib.metadata.Distribution) -> list[str]:
    """Recorded .py files below site-packages, sorted; what an installer put elsewhere or generated is no source."""
    names = (path.as_posix() for path in distribution.files or [] if path.suffix == ".py")
    return sorted(name for name in names if not name.startswith(("..", "/", *_GENERATED_PREFIXES)))


def _licence(
    distribution: importlib.metadata.Distribution,
    metadata: importlib.metadata.PackageMetadata,
    allowed: tuple[str, ...],
) -> str:
    return normalise(
        expression=next(iter(metadata.get_all("License-Expression") or []), None),
        field=next(iter(metadata.get_all("License") or []), None),
        classifiers=[each for each in metadata.get_all("Classifier") or [] if each.startswith("License ::")],
        texts=_licence_texts(distribution),
        allowed=allowed,
    )


def _licence_texts(distribution: importlib.metadata.Distribution) -> Callable[[], Sequence[str]]:
    """Reads the licence files that a distribution ships beside its metadata, when asked."""

    def read() -> list[str]:
        paths = [
            path
            for path in distribution.files or []
            if path.parts[0].endswith(".dist-info") and path.name.upper().startswith(_LICENCE_PREFIXES)
        ]
        locations = sorted(Path(str(distribution.locate_file(path))) for path in paths)
        return [location.read_text(encoding="utf-8", errors="replace") for location in locations if location.is_file()]

    return read
