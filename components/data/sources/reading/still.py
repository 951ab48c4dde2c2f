"""A file that must stand still while it is read, or that is pinned elsewhere."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from components.core.errors import DataError, one_line


class Still:
    """An open file that knows whether it was written to, or another took its place, since it was opened.

    `file` may be closed by whoever reads it: what is asked about the file goes through a descriptor of its own.
    """

    def __init__(self, location: Path) -> None:
        self._location = location
        self.file: BinaryIO = location.open("rb")
        self._descriptor = os.dup(self.file.fileno())
        status = os.fstat(self._descriptor)
        self.size_bytes = status.st_size
        self._before = self._state(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        self.file.close()

    @property
    def changed(self) -> bool:
        """Whether what was read may not be what was opened."""
        try:
            states = {self._state(os.fstat(self._descriptor)), self._state(self._location.stat())}
        except OSError:
            return True
        return states != {self._before}

    @staticmethod
    def _state(status: os.stat_result) -> tuple[int, int, int]:
        return status.st_size, status.st_mtime_ns, status.st_ino


class Remote:
    """A file of a pinned commit elsewhere: it never changes, and what keeps it from being read is no fault of its.

    It is a file for pyarrow, too. `place` says where it is. Raises DataError when it cannot be read.
    """

    changed = False

    def __init__(self, opened: BinaryIO, place: str) -> None:
        self._opened = opened
        self._place = place
        self.file: Any = self
        self.size_bytes = self.seek(0, os.SEEK_END)
        self.seek(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._opened.closed

    def close(self) -> None:
        """Let go of it."""
        self._opened.close()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._opened.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go somewhere, counted in bytes; returns the place."""
        self._opened.seek(offset, whence)
        return self._opened.tell()

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, all that is left when negative."""
        try:
            return self._opened.read(size)
        except OSError as error:
            raise DataError(f"{self._place}: cannot be read on: {one_line(error)}; run it again") from error
