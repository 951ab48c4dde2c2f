"""Git as a process: one that ends, one that is read as it goes, and the contents of blobs from it.

Nothing of a repository is run: no hooks, no filters, no program that its config names. Nobody is asked for a password.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from components.core.addresses import masked
from components.core.config import environment
from components.core.errors import DataError

AT_ONCE = 500
"""Blobs that are asked for before the first is read: their names fit into a pipe."""
_WITHOUT_HOOKS = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false", "-c", "protocol.ext.allow=never"),
)


def git(repository: Path, *arguments: str, timeout_seconds: float) -> str:
    """Run git to its end and return what it printed. Raises DataError with its last word when it fails."""
    process = subprocess.Popen(
        ["git", *_WITHOUT_HOOKS, "-C", str(repository), *arguments],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"git {arguments[0]} took longer than {timeout_seconds:g} s") from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        lines = [line for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
        fatal = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines or ["no message"]
        raise DataError(masked(" ".join(fatal[0].split()))[:300])
    return output.decode("utf-8", "replace").strip()


def _environment() -> dict[str, str]:
    """The environment of a git that asks nobody, speaks three protocols, and knows of no other repository."""
    inherited = {name: value for name, value in environment().items() if not name.startswith("GIT_")}
    kept = {
        name: value for name, value in environment().items() if name.startswith(("GIT_SSH", "GIT_CONFIG", "GIT_SSL"))
    }
    return {
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
        **inherited,
        **kept,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "GIT_ALLOW_PROTOCOL": "https:ssh:file",
        "GIT_LFS_SKIP_SMUDGE": "1",
        # A repository here that lacks objects would fetch them by a program that its own config names.
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
    }


@contextmanager
def running(repository: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A git whose output is read as it comes; it ends with the block."""
    process = subprocess.Popen(
        ["git", *_WITHOUT_HOOKS, "-C", str(repository), *arguments],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        process.wait()


def contents(reader: "subprocess.Popen[bytes]", digests: Sequence[str]) -> Iterator[bytes]:
    """The contents of at most AT_ONCE blobs in their order, from one `git cat-file --batch`."""
    assert reader.stdin is not None and reader.stdout is not None
    # All questions fit into a pipe, so asking them before reading an answer blocks nobody.
    reader.stdin.write("".join(f"{each}\n" for each in digests).encode())
    reader.stdin.flush()
    for each in digests:
        header = reader.stdout.readline().decode().split()
        if header[1:2] != ["blob"]:
            raise DataError(f"git cat-file: {' '.join(header) or 'ended'} for {each}; ingest again")
        yield reader.stdout.read(int(header[2]))
        reader.stdout.read(1)


def sizes(reader: "subprocess.Popen[bytes]", digests: Sequence[str]) -> list[int | None]:
    """Bytes of at most AT_ONCE blobs in their order, from one `git cat-file --batch-check`; None for what is none."""
    assert reader.stdin is not None and reader.stdout is not None
    reader.stdin.write("".join(f"{each}\n" for each in digests).encode())
    reader.stdin.flush()
    answers = [reader.stdout.readline().split() for _ in digests]
    return [int(answer[2]) if answer[1:2] == [b"blob"] else None for answer in answers]
