"""Objects of a bucket as files: listed once, read in parallel and in ranges, verified, kept until ingest has succeeded.

An object is pinned by the ETag of its listing: every read asks for that ETag (If-Match), so bytes of two versions are
never mixed. A file appears under its name only when it is whole; the name holds the digest of its content, so that a
rerun takes it again only when it still is what was read.
Covers: cut connections, 503 and other passing faults (again, with growing pauses); wrong lengths; wrong MD5 (ETags
that are one), CRC-32, SHA-1 and SHA-256 (where the store states them of the whole object).
Not covered: checksums that are composed of those of parts; a download that was cut resumes with the object, not with
the byte.
"""

import base64
import hashlib
import os
import random
import re
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError

from components.core.artifact import sha256_of
from components.core.errors import DataError, one_line

_ATTEMPTS = 4  # each of which the client tries four times, where the request itself fails
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0
_CHANGED = frozenset({"412", "PreconditionFailed", "404", "NoSuchKey", "416", "InvalidRange"})
_PASSING = frozenset({"429", "SlowDown", "RequestTimeout", "RequestTimeTooSkewed"})
_CLOSED = frozenset({"403", "AccessDenied", "InvalidObjectState"})
# Read ahead of what is asked for: small objects are worth it by the hundred, large ones fill the disk.
_AHEAD_OBJECTS_PER_THREAD = 16
_TEMPORARY = ".part"
_SUFFIXES = (".gz", ".zst")

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """An object as it was listed."""

    key: str
    etag: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Why an object gave no file: changed, unreadable or corrupt, and what was seen."""

    reason: str
    detail: str


class _LeftError(Exception):
    """An object that cannot be had, however often one asks."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.left = Left(reason=reason, detail=detail)


class _DamagedError(Exception):
    """Bytes that are not those of the object: cut, or altered on their way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A bucket seen through a client that threads may share."""

    client: Any
    name: str

    def place(self, key: str) -> str:
        """The key as a person would look for it."""
        return f"s3://{self.name}/{key}"

    def objects(self, prefix: str) -> list[Object]:
        """Every object whose key starts with the prefix, by key. Raises DataError when they cannot be listed."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        try:
            listing = [
                Object(key=each["Key"], etag=each["ETag"], bytes=each["Size"])
                for page in pages
                for each in page.get("Contents", ())
            ]
        except (ClientError, BotoCoreError) as error:
            raise DataError(
                f"{self.place(prefix)}: cannot be listed: {one_line(error)}; correct the bucket or the credentials"
            ) from error
        return sorted(listing, key=lambda each: each.key)

    def read(self, wanted: Object, start: int, stop: int) -> tuple[bytes, Mapping[str, Any]]:
        """Bytes of an object from `start` to before `stop`, and the answer's headers.

        Raises _LeftError when the object is not what was listed or may not be read, _DamagedError when fewer or other
        bytes came, and whatever botocore raises for a fault that may pass.
        """
        whole = start == 0 and stop == wanted.bytes
        extent = {"ChecksumMode": "ENABLED"} if whole else {"Range": f"bytes={start}-{stop - 1}"}
        try:
            answer = self.client.get_object(Bucket=self.name, Key=wanted.key, IfMatch=wanted.etag, **extent)
            content = answer["Body"].read()
        except ClientError as error:
            code = str(error.response["Error"]["Code"])
            if code in _CHANGED:
                raise _LeftError("changed", f"was {wanted.etag} when it was listed, is not when it is read") from error
            if code in _CLOSED:
                raise _LeftError("unreadable", one_line(error)) from error
            raise
        except FlexibleChecksumError as error:
            raise _DamagedError(one_line(error)) from error
        if len(content) != stop - start:
            raise _DamagedError(f"found {len(content)} bytes, needed {stop - start}")
        return content, answer


class Files:
    """A folder of downloaded objects; survives a process that dies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.clear()
        self._whole = {path.name.partition("-")[0]: path for path in folder.iterdir()}

    def clear(self) -> None:
        """Remove what was gathered in part."""
        for leftover in self.folder.glob(f"*{_TEMPORARY}"):
            leftover.unlink()

    def get(self, place: str, wanted: Object) -> Path | None:
        """The file of an object that an earlier run brought here, after checking that nothing happened to it."""
        path = self._whole.get(self._stem(place, wanted))
        if path is None or path.stat().st_size != wanted.bytes or sha256_of(path) != _stated(path):
            return None
        return path

    def temporary(self, place: str, wanted: Object) -> Path:
        """Where the bytes of an object are gathered."""
        return self.folder / f"{self._stem(place, wanted)}{_TEMPORARY}"

    def put(self, temporary: Path, wanted: Object) -> Path:
        """Make a gathered file one that counts. It keeps the end of its key, which says how it is compressed."""
        suffix = next((each for each in _SUFFIXES if wanted.key.endswith(each)), "")
        stem = temporary.name.removesuffix(_TEMPORARY)
        return temporary.rename(self.folder / f"{stem}-{sha256_of(temporary)}{suffix}")

    def _stem(self, place: str, wanted: Object) -> str:
        return hashlib.sha256(f"{place}\0{wanted.etag}".encode()).hexdigest()


def _stated(path: Path) -> str:
    """The digest in the name of a file."""
    return path.name.partition("-")[2].partition(".")[0]


def fetch(
    bucket: Bucket, objects: Sequence[Object], files: Files, *, range_bytes: int, threads: int
) -> Iterator[tuple[Object, Path | Left]]:
    """Each object in the order given with the file that holds it, or with the reason why there is none.

    Memory is at most threads times range_bytes. Raises DataError when a fault does not pass.
    """
    waiting: deque[tuple[Object, Callable[[], Path | Left]]] = deque()
    ahead_bytes = 0
    pool = ThreadPoolExecutor(threads)
    try:
        for each in objects:
            waiting.append((each, _start(bucket, each, files, pool, range_bytes)))
            ahead_bytes += each.bytes
            while len(waiting) > threads * _AHEAD_OBJECTS_PER_THREAD or (
                len(waiting) > 1 and ahead_bytes > threads * range_bytes
            ):
                first, finish = waiting.popleft()
                ahead_bytes -= first.bytes
                yield first, finish()
        while waiting:
            first, finish = waiting.popleft()
            yield first, finish()
    finally:
        pool.shutdown(cancel_futures=True)
        files.clear()


def _start(
    bucket: Bucket, wanted: Object, files: Files, pool: ThreadPoolExecutor, range_bytes: int
) -> Callable[[], Path | Left]:
    """Start to bring an object here; what is returned waits for it."""
    place = bucket.place(wanted.key)
    if wanted.bytes <= range_bytes:
        return pool.submit(lambda: files.get(place, wanted) or _small(bucket, wanted, files)).result
    if (path := files.get(place, wanted)) is not None:
        return lambda: path
    temporary = files.temporary(place, wanted)
    with temporary.open("wb") as target:
        target.truncate(wanted.bytes)

    def again() -> list[Future[None]]:
        starts = range(0, wanted.bytes, range_bytes)
        return [pool.submit(_part, bucket, wanted, temporary, at, min(at + range_bytes, wanted.bytes)) for at in starts]

    return partial(_joined, bucket, wanted, files, again(), again)


def _small(bucket: Bucket, wanted: Object, files: Files) -> Path | Left:
    """An object in one request."""

    def once() -> bytes:
        if not wanted.bytes:
            return b""
        content, headers = bucket.read(wanted, 0, wanted.bytes)
        _verify(headers, wanted, [content])
        return content

    try:
        content = _persist(once, bucket.place(wanted.key))
    except _LeftError as error:
        return error.left
    temporary = files.temporary(bucket.place(wanted.key), wanted)
    temporary.write_bytes(content)
    return files.put(temporary, wanted)


def _part(bucket: Bucket, wanted: Object, temporary: Path, start: int, stop: int) -> None:
    """One range of an object, into its place in the file."""
    content, _ = _persist(lambda: bucket.read(wanted, start, stop), bucket.place(wanted.key))
    with temporary.open("r+b") as target:
        os.pwrite(target.fileno(), content, start)


def _joined(
    bucket: Bucket,
    wanted: Object,
    files: Files,
    parts: list[Future[None]],
    again: Callable[[], list[Future[None]]],
) -> Path | Left:
    """The file of an object once all of its ranges are there and make up the object.

    When they do not, all are read `again`, once: nothing says which range was altered on its way.
    """
    place = bucket.place(wanted.key)
    temporary = files.temporary(place, wanted)
    pinned = {"Bucket": bucket.name, "Key": wanted.key, "IfMatch": wanted.etag}
    for last in (False, True):
        try:
            for part in parts:
                part.result()
            headers = _persist(lambda: bucket.client.head_object(**pinned, ChecksumMode="ENABLED"), place)
            with temporary.open("rb") as source:
                _verify(headers, wanted, iter(lambda: source.read(1 << 20), b""))
            return files.put(temporary, wanted)
        except _LeftError as error:
            for part in parts:
                part.cancel()
            return error.left
        except _DamagedError as error:
            damage = str(error)
            parts = [] if last else again()
    return Left(reason="corrupt", detail=f"{damage}, twice")


def _persist(ask: Callable[[], Answer], place: str) -> Answer:
    """The answer to a request that is made again, after a pause, when a fault may pass."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 4 ** (attempt - 1))
            time.sleep(pause * random.uniform(0.5, 1.0))
        try:
            return ask()
        except _DamagedError as error:
            fault: Exception = error
        except ClientError as error:
            fault = error
            if not _may_pass(error):
                break
        except BotoCoreError as error:
            fault = error
    if isinstance(fault, _DamagedError):
        raise _LeftError("corrupt", f"{fault}, {_ATTEMPTS} times") from fault
    raise DataError(
        f"{place}: cannot be read: {one_line(fault)}; run it again: what is here already is not read again"
    ) from fault


def _may_pass(error: ClientError) -> bool:
    """Whether the answer is about the server's state and not about the request."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    return status >= 500 or str(error.response["Error"]["Code"]) in _PASSING


def _verify(headers: Mapping[str, Any], wanted: Object, content: Iterator[bytes] | Sequence[bytes]) -> None:
    """Raise _DamagedError unless the content has every digest that the store states of the whole object."""
    stated: dict[str, str] = {}
    encrypted = headers.get("ServerSideEncryption", "AES256") != "AES256" or headers.get("SSECustomerAlgorithm")
    if not encrypted and re.fullmatch(r'"[0-9a-f]{32}"', wanted.etag):
        stated["md5"] = wanted.etag.strip('"')
    for name, header in (("crc32", "ChecksumCRC32"), ("sha1", "ChecksumSHA1"), ("sha256", "ChecksumSHA256")):
        if (value := headers.get(header)) and headers.get("ChecksumType") != "COMPOSITE" and "-" not in value:
            stated[name] = base64.b64decode(value).hex()
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in stated if name != "crc32"}
    crc = 0
    for piece in content:
        crc = zlib.crc32(piece, crc) if "crc32" in stated else crc
        for each in hashes.values():
            each.update(piece)
    digests = {name: each.hexdigest() for name, each in hashes.items()} | {"crc32": f"{crc:08x}"}
    for name, value in stated.items():
        if digests[name] != value:
            raise _DamagedError(f"found {name} {digests[name]}, the store says {value}")
