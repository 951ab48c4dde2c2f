"""Checkpoints of a run: directories of safetensors and JSON with a manifest written last, verified when read.

    <run>/step-00000120/pieces-00000-of-00002.safetensors   what worker 0 of 2 holds: masters, momenta, RNG
                        pieces-00001-of-00002.safetensors
                        state.json        step, order position, seconds spent, decisions, history
                        checkpoint.json   bytes and sha256 of the above, which part of which tensor lies where, and
                                          its own sha256; written last

A directory is written aside and renamed (checkpoint_writer.py), so a kill at any moment leaves the last good one. A
damaged one is named, removed and passed over for the one before; with none left the run starts from its beginning,
which gives the same weights later, where a refusal would waste the night. Of pieces just the part wanted is read: any
number of workers, in either mode, goes on from what any other number wrote.
No pickle: torch.distributed.checkpoint, which does the same, pickles its metadata, so a checkpoint would be a program.
Not covered: workers that share no file system; loss of power is met by fsync, which no test here can prove.
"""

import fcntl
import hashlib
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from components.training.engine.reason import reason_of

MANIFEST = "checkpoint.json"
STATE = "state.json"
PREFIX = "step-"
ASIDE = ".writing-"
WEIGHT = "weight."
AVERAGE = "average."


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Numbers [start, start + len(tensor)) of a tensor of `shape`, laid end to end: what one worker holds of it.

    `tensor` is the live one, of one dimension, so that a piece says where to save from and where to load to. Several
    workers may hold the same numbers; together they hold all.
    """

    name: str
    tensor: Tensor
    shape: tuple[int, ...]
    start: int = 0


class DamagedCheckpointError(Exception):
    """A checkpoint that is not what its manifest says: file, found, wanted."""


class Checkpoint:
    """What a run goes on from. Opening it reads the manifest alone; `verify` reads every byte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: dict[str, Any] = {}
        try:
            content = json.loads((path / MANIFEST).read_bytes())
            wanted = content.pop("sha256")
            if (sha256 := digest(content)) != wanted:
                raise DamagedCheckpointError(f"{path / MANIFEST}: found sha256 {sha256}, wanted {wanted}")
            self.step: int = content["step"]
            self.num_workers: int = content["num_workers"]
            self.files: dict[str, dict[str, Any]] = content["files"]
            self.tensors: dict[str, dict[str, Any]] = content["tensors"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedCheckpointError(f"{path / MANIFEST}: cannot be read: {reason_of(error)}") from error
        if path.name != name_of(self.step):
            raise DamagedCheckpointError(f"{path}: holds step {self.step}, its name says another")

    def verify(self) -> None:
        """Read every file, several at once. Raises DamagedCheckpointError that names the first one that differs."""
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(self._check, self.files))

    def _check(self, name: str) -> None:
        path, wanted = self.path / name, self.files[name]
        try:
            with path.open("rb") as source:
                num_bytes = os.fstat(source.fileno()).st_size
                if num_bytes != wanted["bytes"]:
                    raise DamagedCheckpointError(f"{path}: found {num_bytes} bytes, wanted {wanted['bytes']}")
                sha256 = hashlib.file_digest(source, "sha256").hexdigest()
            if sha256 != wanted["sha256"]:
                raise DamagedCheckpointError(f"{path}: found sha256 {sha256}, wanted {wanted['sha256']}")
            if name != STATE:
                self._pieces(name)
        except (OSError, SafetensorError) as error:
            raise DamagedCheckpointError(f"{path}: cannot be read: {reason_of(error)}") from error

    def state(self) -> dict[str, Any]:
        """What is no tensor."""
        return dict(json.loads((self.path / STATE).read_bytes()))

    def read(self, name: str, start: int = 0, length: int | None = None) -> Tensor:
        """Numbers [start, start + length) of a tensor, laid end to end, on the host, from whichever files hold them.

        Raises DamagedCheckpointError when no file does.
        """
        entry = self.tensors.get(name)
        if entry is None:
            raise DamagedCheckpointError(f"{self.path}: holds no {name}; it is of another model or optimizer")
        end = math.prod(entry["shape"]) if length is None else start + length
        parts = []
        while start < end:
            holder = next((each for each in entry["pieces"] if each[1] <= start < each[1] + each[2]), None)
            if holder is None:
                raise DamagedCheckpointError(f"{self.path}: number {start} of {name} is in none of its files")
            file, first, held = holder
            stop = min(end, first + held)
            parts.append(self._pieces(file).get_slice(name)[start - first : stop - first])
            start = stop
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def load(self, pieces: list[Piece]) -> None:
        """Fill the pieces' tensors. Raises DamagedCheckpointError before any is changed."""
        for piece in pieces:
            shape = self.tensors.get(piece.name, {}).get("shape")
            if shape != list(piece.shape):
                raise DamagedCheckpointError(f"{self.path}: {piece.name} has shape {shape}, wanted {piece.shape}")
        for piece in pieces:
            if len(piece.tensor):
                piece.tensor.copy_(self.read(piece.name, piece.start, len(piece.tensor)))

    def weights(self, prefix: str = WEIGHT) -> dict[str, Tensor]:
        """The whole float32 masters by name of parameter, or with AVERAGE their running averages."""
        return {
            name.removeprefix(prefix): self.read(name).view(entry["shape"])
            for name, entry in self.tensors.items()
            if name.startswith(prefix)
        }

    def _pieces(self, file: str) -> Any:
        if file not in self._open:
            self._open[file] = safe_open(self.path / file, framework="pt")
        return self._open[file]


def name_of(step: int) -> str:
    """The directory of a step's checkpoint."""
    return f"{PREFIX}{step:08d}"


def steps(run: Path) -> list[int]:
    """Steps that have a checkpoint, newest first."""
    return sorted((int(path.name.removeprefix(PREFIX)) for path in run.glob(f"{PREFIX}*")), reverse=True)


def load_last_good(run: Path, note: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that verifies; None when there is none, with a note when there was one.

    Each one passed over is noted and removed, and so are the leftovers of killed writers: for the only worker, or
    worker 0 while no other writes.
    """
    for leftover in run.glob(f"{ASIDE}*"):
        shutil.rmtree(leftover)
    refused = steps(run)
    for step in refused:
        path = run / name_of(step)
        try:
            checkpoint = Checkpoint(path)
            checkpoint.verify()
            return checkpoint
        except DamagedCheckpointError as error:
            note(f"checkpoint refused: {error}; using the one before")
            remove(path)
    if refused:
        note(f"no checkpoint of {len(refused)} is good: starting from the beginning")
    return None


def remove(path: Path) -> None:
    """Take a checkpoint away: out of sight in one step, then file by file."""
    aside = path.with_name(f"{ASIDE}{uuid.uuid4().hex[:8]}")
    path.rename(aside)
    shutil.rmtree(aside)


def digest(content: dict[str, Any]) -> str:
    """sha256 of a manifest's content, hex."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextmanager
def held(run: Path, patience_seconds: float = 60.0) -> Iterator[None]:
    """Be the only run that writes here: a worker whose driver was killed may live on for a moment.

    Worker 0 holds it for all. The kernel frees the lock when its holder dies. Raises TimeoutError when somebody keeps
    it.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / "lock").open("w") as file:
        until = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(f"{run}: another process is training this very run; wait for it") from None
                time.sleep(0.2)
        yield
