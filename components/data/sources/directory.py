"""Directories of source files: every file whose suffix stands for a language, under one stated licence.

Covers: several directories; hidden files and directories are left. Not covered: links to directories, archives.
"""

from collections import Counter
from pathlib import Path

from components.core.errors import DataError
from components.data.config import IngestConfig
from components.data.documents import language_of
from components.data.sources.files import Found, SourceFile


def find(config: IngestConfig) -> Found:
    """Every file below the directories, by directory and path. Raises DataError for a path that is no directory."""
    left: Counter[str] = Counter()
    files = []
    for name in config.paths:
        root = Path(name)
        if not root.is_dir():
            found = "a file" if root.exists() else "nothing"
            raise DataError(f"{name}: found {found}, needed a directory; correct ingest.paths in params.yaml")
        for location in sorted(path for path in root.rglob("*") if path.is_file()):
            relative = location.relative_to(root)
            if any(part.startswith(".") for part in relative.parts):
                left["hidden"] += 1
            elif (language := language_of(location.name)) is None:
                left["unknown_language"] += 1
            else:
                files.append(
                    SourceFile(
                        location=location,
                        path=relative.as_posix(),
                        package=config.package,
                        version="",
                        licence=config.licence,
                        language=language,
                    )
                )
    return Found(files=files, left=left)
