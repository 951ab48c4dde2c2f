"""One cycle at a time in a workspace: an exclusive flock, which the kernel frees however its holder ends."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator

from components.core.config import Settings
from components.core.errors import BusyError
from components.core.private import folder


@contextlib.contextmanager
def exclusive(settings: Settings, purpose: str) -> Iterator[None]:
    """Hold the workspace. Raises BusyError that says who holds it, since when and for what."""
    folder(settings.state)
    path = settings.state / "workspace.lock"
    # Opened without inheritance: a child that outlives us must not hold the lock.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"{_holder(os.read(descriptor, 4096))}; wait for it, or stop it") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "since": time.time(), "purpose": purpose}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(content: bytes) -> str:
    try:
        holder = json.loads(content)
        since = time.strftime("%H:%M:%S", time.localtime(holder["since"]))
        return f"this workspace is held by process {holder['pid']} ({holder['purpose']}) since {since}"
    except (ValueError, KeyError, TypeError):
        return "this workspace is held by another process"
