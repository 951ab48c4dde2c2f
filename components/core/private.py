"""What belongs to one user: the state folder, the keys in it, and scratch folders outside it.

Services trust what lies there: a record says which process to end, a Git hook is a program, a key opens everything.
So a folder is 0700 and a key 0600, both are ours, and nothing has a name that somebody else could have taken first.
"""

import contextlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from components.core.errors import ConfigError

OTHERS = 0o077
WRITE = 0o022
KEY_BYTES = 32


def require_ours(path: Path) -> None:
    """Refuse what another user owns. Root's is accepted while nobody else can write it; an absent path is fine.

    Raises ConfigError.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; it must be yours, choose another with OVERNIGHT_STATE") from error
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid() and (status.st_uid != 0 or mode & WRITE):
        raise ConfigError(
            f"{path} belongs to user {status.st_uid} (mode {mode:04o}), needed user {os.geteuid()}: what it holds is "
            "trusted; give it to this user (chown), or choose another place with OVERNIGHT_STATE"
        )


def require_private(path: Path) -> None:
    """As require_ours, and take from other users what they may do with ours, with one line that says so."""
    require_ours(path)
    if not path.exists():
        return
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid == os.geteuid() and mode & OTHERS and _narrow(path, mode & ~OTHERS):
        print(f"overnight: {path} was open to other users (mode {mode:04o}); it is private now", file=sys.stderr)


def _narrow(path: Path, mode: int) -> bool:
    """Whether a mode could be set; some file systems have none, and some cannot be written."""
    with contextlib.suppress(OSError):
        path.chmod(mode)
    return stat.S_IMODE(path.stat().st_mode) == mode


def folder(path: Path) -> Path:
    """A folder that only this user can enter, made when absent. Raises ConfigError when it is somebody else's."""
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
    require_private(path)
    return path


def key(path: Path) -> str:
    """A random key, hex, in a file of 0600; made on first use, whole or not at all. Raises ConfigError."""
    folder(path.parent)
    if not path.exists():
        descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # 0600
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES))
        with contextlib.suppress(FileExistsError):  # another process was faster: its key counts
            os.link(aside, path)
        Path(aside).unlink()
    require_private(path)
    text = path.read_text()
    if len(text) != 2 * KEY_BYTES or not text.isalnum():
        raise ConfigError(f"{path} holds no key; delete it, `overnight down` and `overnight up` make a new one")
    return text


def scratch(record: Path, prefix: str) -> Path:
    """A new folder of 0700 in the system's place for temporary ones, its random name kept in `record`.

    The one that the record names so far goes first.
    """
    discard(record, prefix)
    made = Path(tempfile.mkdtemp(prefix=prefix))
    record.write_text(str(made))
    return made


def discard(record: Path, prefix: str) -> None:
    """Remove the scratch folder that a record names, if it is there and ours, and the record."""
    try:
        path = Path(record.read_text())
        status = path.lstat()
    except (OSError, ValueError):
        return
    if path.name.startswith(prefix) and stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
        shutil.rmtree(path, ignore_errors=True)
    record.unlink(missing_ok=True)
