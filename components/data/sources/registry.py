"""Which module reads which kind of source. Sources whose clients are dear to import are imported when they are used."""

from collections.abc import Iterator

from components.data.sources import directory, git, jsonl, parquet, python_environment
from components.data.sources.batch import Batch
from components.data.sources.config import (
    AnySource,
    DirectorySource,
    GitSource,
    JsonlSource,
    ParquetSource,
    PythonEnvironmentSource,
)


def read(source: AnySource) -> Iterator[Batch]:
    """The batches of a source, by its kind. Raises DataError with one line when it cannot be read at all."""
    match source:
        case PythonEnvironmentSource():
            return python_environment.read(source)
        case DirectorySource():
            return directory.read(source)
        case GitSource():
            return git.read(source)
        case ParquetSource():
            return parquet.read(source)
        case JsonlSource():
            return jsonl.read(source)
