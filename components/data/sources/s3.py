"""Objects below a prefix of a bucket: files of source code, and tables in Parquet or JSON lines.

Covers: many small objects and few large ones, in parallel; the version that was listed and no other (an object that
changes is left as `changed`); faults that pass; a rerun after a kill or an outage, which does not read again what it
has; .parquet, .jsonl, .jsonl.gz and .jsonl.zst, read as the sources of these kinds read them.
Not covered: licence files beside the objects (a licence is stated for all); older versions of an object.

What was read waits below the state directory until ingest has written its artifact, at most keep_bytes of it.
Credentials, region and endpoint are boto3's: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and so on.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from components.core.config import read_settings
from components.core.errors import DataError
from components.data.documents.path_patterns import slashed
from components.data.documents.programming_languages import language_of
from components.data.sources.config import JsonlSource, S3Source
from components.data.sources.jsonl import read_lines
from components.data.sources.parquet import read_table
from components.data.sources.reading.document_batch import Batch
from components.data.sources.reading.files import Gathering, SourceFile, read_content
from components.data.sources.reading.objects import Bucket, Files, Left, Object, fetch
from components.data.sources.reading.tree import PathFilter
from components.machine.object_store import s3_client

_PARQUET = ".parquet"
_JSONL = (".jsonl", ".jsonl.gz", ".jsonl.zst")


def read(config: S3Source) -> Iterator[Batch]:
    """Every wanted object, by key. Raises DataError when the prefix cannot be listed or a fault does not pass."""
    bucket = Bucket(client=s3_client(config.bucket, connections=config.threads), name=config.bucket)
    path_filter = PathFilter(config)
    gathering = Gathering()
    chosen = []
    for each in bucket.objects(config.prefix):
        path = _path(each, config)
        if not path or path.endswith("/"):  # how consoles draw an empty folder
            continue
        if refusal := _refusal(path, each.bytes, path_filter, config):
            gathering.leave(path, *refusal)
        else:
            chosen.append(each)
        if gathering.is_full:
            yield gathering.batch()
    files = Files(_folder(config))
    kept_bytes = 0
    for each, result in fetch(bucket, chosen, files, range_bytes=config.range_bytes, threads=config.threads):
        path = _path(each, config)
        if isinstance(result, Left):
            gathering.leave(path, result.reason, result.detail)
        elif path.endswith((_PARQUET, *_JSONL)):
            yield gathering.batch()
            yield from _table(result, path, config)
        else:
            _add(result, path, each, config, gathering)
        if gathering.is_full:
            yield gathering.batch()
        if isinstance(result, Path):
            kept_bytes += each.bytes
            if kept_bytes > config.keep_bytes:
                result.unlink()
    yield gathering.batch()


def listing(config: S3Source) -> str:
    """Every object below the prefix with its ETag, a line each. Raises DataError when they cannot be listed."""
    bucket = Bucket(client=s3_client(config.bucket, connections=config.threads), name=config.bucket)
    return "\n".join(f"{each.key}\0{each.etag}\0{each.bytes}" for each in bucket.objects(config.prefix))


def forget(config: S3Source) -> None:
    """Remove what was kept for a rerun."""
    shutil.rmtree(_folder(config), ignore_errors=True)


def _folder(config: S3Source) -> Path:
    return read_settings().state / "objects" / f"s3-{config.label}"  # a name may be two dots


def _path(each: Object, config: S3Source) -> str:
    """The key of an object below the prefix."""
    below = each.key.removeprefix(config.prefix)
    return below if config.prefix.endswith("/") or not config.prefix else below.removeprefix("/")


def _refusal(path: str, size: int, path_filter: PathFilter, config: S3Source) -> tuple[str, str] | None:
    """(reason, detail) of an object that is not read at all."""
    if ".." in slashed(path).split("/"):
        return "unsafe_path", ""
    refusal = path_filter.refusal(path)
    if path.endswith((_PARQUET, *_JSONL)):
        return None if refusal in (None, ("unknown_language", "")) else refusal
    if refusal is None and size > config.max_document_bytes:
        return "too_large", f"{size} bytes, allowed {config.max_document_bytes}"
    return refusal


def _add(location: Path, path: str, each: Object, config: S3Source, gathering: Gathering) -> None:
    """A file of source code into the batch at hand; its version is the ETag unless the config states one."""
    content = read_content(str(location), config.max_document_bytes)
    if isinstance(content, tuple):
        raise DataError(f"{location}: {content[1]}, and was written just now; run it again")
    file = SourceFile(
        location="",
        path=path,
        package=config.package or config.bucket,
        version=config.version or each.etag.strip('"'),
        licence=config.licence,
        language=config.language or language_of(path) or "unknown",
    )
    gathering.add(file, content)


def _table(location: Path, path: str, config: S3Source) -> Iterator[Batch]:
    """The rows of a Parquet file or of JSON lines."""
    if path.endswith(_PARQUET):
        yield from read_table(location, config, path)
        return
    fields = {name: getattr(config, name) for name in JsonlSource.model_fields if name in S3Source.model_fields}
    yield from read_lines(location, JsonlSource(**{**fields, "kind": "jsonl", "paths": (path,)}), path)
