"""A file that must stand still while it is read."""

import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self


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
