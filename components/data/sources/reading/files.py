"""Files as documents: read in threads, a few hundred ahead, as batches of columns.

Covers: files that cannot be read, are no regular files, are too large, are not UTF-8, or change while they are read.
Not covered: a file that is whole and wrong, which only its writer knows.
"""

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from components.data.sources.reading.document_batch import BATCH_BYTES, BATCH_ROWS, Batch, documents, left_rows

_THREADS = 4
_FILES_A_TASK = 32
_TASKS_AHEAD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file that may become a document. `location` is where it lies now, `path` what it is called in the data."""

    location: str
    path: str
    package: str
    version: str
    licence: str | None
    language: str


# (path, reason, detail) of a file that cannot become a document.
Left = tuple[str, str, str]


def read_files(
    files: Iterable[SourceFile | Left], *, max_document_bytes: int, follow_links: bool = False
) -> Iterator[Batch]:
    """The texts of files, in their order; what is Left already is passed on."""
    gathering = Gathering()
    with ThreadPoolExecutor(_THREADS) as pool:
        for file, content in _read_ahead(pool, iter(files), max_document_bytes, follow_links):
            if isinstance(file, tuple):
                gathering.leave(*file)
            elif content is None or isinstance(content, tuple):
                gathering.leave(file.path, *(content or ("unreadable", "")))
            else:
                gathering.add(file, content)
            if gathering.is_full:
                yield gathering.batch()
    yield gathering.batch()


def _read_ahead(
    pool: ThreadPoolExecutor, files: Iterator[SourceFile | Left], max_document_bytes: int, follow_links: bool
) -> Iterator[tuple[SourceFile | Left, "Content | None"]]:
    """Each file with its content, read some tasks ahead of who asks."""

    def read(some: Sequence[SourceFile | Left]) -> list[Content | None]:
        return [
            None if isinstance(file, tuple) else read_content(file.location, max_document_bytes, follow_links)
            for file in some
        ]

    tasks: deque[tuple[list[SourceFile | Left], Future[list[Content | None]]]] = deque()
    while True:
        while len(tasks) < _TASKS_AHEAD and (some := list(islice(files, _FILES_A_TASK))):
            tasks.append((some, pool.submit(read, some)))
        if not tasks:
            return
        done, future = tasks.popleft()
        yield from zip(done, future.result(), strict=True)


# The bytes of a file, or (reason, detail).
Content = bytes | tuple[str, str]


def read_content(location: str, max_document_bytes: int, follow_links: bool = False) -> Content:
    """All bytes of a regular file that stood still while it was read, or (reason, detail)."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(location, flags)
    except OSError as error:
        return "unreadable", error.strerror or "OSError"
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            return "not_a_file", "neither a file nor a directory"
        if before.st_size > max_document_bytes:
            return "too_large", f"{before.st_size} bytes, allowed {max_document_bytes}"
        content = _read_all(descriptor, before.st_size)
        after = os.fstat(descriptor)
    except OSError as error:
        return "unreadable", error.strerror or "OSError"
    finally:
        os.close(descriptor)
    if len(content) != before.st_size or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return "changed", "the file was written to while it was read; ingest again when it is at rest"
    return content


def _read_all(descriptor: int, size: int) -> bytes:
    """The content up to one byte more than `size`, so that a file that grew shows."""
    parts = []
    wanted = size + 1
    while wanted and (part := os.read(descriptor, wanted)):
        parts.append(part)
        wanted -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Gathering:
    """Contents on their way into one batch of columns."""

    def __init__(self) -> None:
        self._files: list[SourceFile] = []
        self._contents: list[bytes] = []
        self._left: list[Left] = []
        self._bytes = 0

    def add(self, file: SourceFile, content: bytes) -> None:
        """A file's bytes; what is binary or not UTF-8 is left when the batch is made."""
        if printable(file.path) != file.path:
            self.leave(file.path, "path_not_utf8", "")
            return
        self._files.append(file)
        self._contents.append(content)
        self._bytes += len(content)

    def leave(self, path: str, reason: str, detail: str) -> None:
        """A file that is no document."""
        self._left.append((printable(path), reason, detail))

    @property
    def is_full(self) -> bool:
        """Whether it is time to make a batch."""
        return self._bytes >= BATCH_BYTES or len(self._files) >= BATCH_ROWS or len(self._left) >= BATCH_ROWS

    def batch(self) -> Batch:
        """What was gathered, as columns; the next batch starts empty."""
        try:
            texts = pa.array(self._contents, pa.large_binary()).cast(pa.large_string())
        except pa.ArrowInvalid:
            texts = self._only_utf8()
        made = Batch(
            documents(
                {
                    "text": texts,
                    **{
                        name: [getattr(file, name) for file in self._files]
                        for name in ("path", "package", "version", "licence", "language")
                    },
                }
            ),
            left_rows(self._left),
        )
        self._files, self._contents, self._left, self._bytes = [], [], [], 0
        return made

    def _only_utf8(self) -> pa.Array:
        """The texts of the files that are UTF-8; the others are left as binary or not_utf8."""
        kept: list[tuple[SourceFile, str]] = []
        for file, content in zip(self._files, self._contents, strict=True):
            try:
                kept.append((file, content.decode("utf-8")))
            except UnicodeDecodeError as error:
                reason = "binary" if b"\0" in content[:8192] else "not_utf8"
                self.leave(file.path, reason, f"byte {error.start} is 0x{content[error.start]:02x}")
        self._files = [file for file, _ in kept]
        return pa.array([text for _, text in kept], pa.large_string())


def printable(path: str) -> str:
    """A path as valid text: bytes that are not UTF-8 become escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
