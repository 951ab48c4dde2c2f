"""Which module reads which kind of source. Sources whose clients are dear to import are imported when they are used."""

import importlib
from collections.abc import Iterator

from components.data.sources import canaries, directory, feedback, git, jsonl, parquet, python_environment
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
from components.data.sources.reading.document_batch import Batch


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
        case FeedbackSource():
            return feedback.read(source)
        case CanarySource():
            return canaries.read(source)
        case S3Source():
            batches: Iterator[Batch] = importlib.import_module("components.data.sources.s3").read(source)
        case HuggingFaceSource():
            batches = importlib.import_module("components.data.sources.huggingface").read(source)
    return batches


def forget(source: AnySource) -> None:
    """Remove what a source kept for a rerun, once there is nothing to run again."""
    if isinstance(source, S3Source):
        importlib.import_module("components.data.sources.s3").forget(source)
