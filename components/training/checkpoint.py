"""Checkpoints of a run: directories of safetensors and JSON with a manifest written last, verified when read.

    <run>/step-00000120/weights.safetensors     float32 masters
                        optimizer.safetensors   momenta
                        state.json              step, order position, seconds spent, decisions, history
                        checkpoint.json         bytes and sha256 of the above, written last

A directory is written aside and renamed, so a kill at any moment leaves the last good one. A damaged one is named and
passed over for the one before. No pickle. Not covered: several writers, sharded state.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

MANIFEST = "checkpoint.json"
WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
PREFIX = "step-"
ASIDE = ".writing-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a run goes on from."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


class DamagedCheckpointError(Exception):
    """A checkpoint that is not what its manifest says: file, found, wanted."""


def save(run: Path, step: int, checkpoint: Checkpoint, keep: int) -> Path:
    """Write the checkpoint of a step as a whole, then drop all but the newest `keep`."""
    run.mkdir(parents=True, exist_ok=True)
    out = run / f"{PREFIX}{step:08d}"
    aside = run / f"{ASIDE}{uuid.uuid4().hex[:8]}"
    aside.mkdir()
    save_file({name: each.contiguous() for name, each in checkpoint.weights.items()}, aside / WEIGHTS)
    save_file({name: each.contiguous() for name, each in checkpoint.optimizer.items()}, aside / OPTIMIZER)
    (aside / STATE).write_text(json.dumps(checkpoint.state))
    listing = {}
    for name in (WEIGHTS, OPTIMIZER, STATE):
        _sync(aside / name)
        listing[name] = {"bytes": (aside / name).stat().st_size, "sha256": _sha256(aside / name)}
    (aside / MANIFEST).write_text(json.dumps(listing, indent=1))
    _sync(aside / MANIFEST)
    if out.exists():
        shutil.rmtree(out)
    aside.rename(out)
    _sync(run)
    for old in steps(run)[keep:]:
        shutil.rmtree(run / f"{PREFIX}{old:08d}")
    return out


def steps(run: Path) -> list[int]:
    """Steps that have a checkpoint, newest first."""
    return sorted((int(path.name.removeprefix(PREFIX)) for path in run.glob(f"{PREFIX}*")), reverse=True)


def load(path: Path) -> Checkpoint:
    """Read one checkpoint after checking every file against its manifest. Raises DamagedCheckpointError."""
    try:
        listing = json.loads((path / MANIFEST).read_text())
        for name, wanted in listing.items():
            found = _sha256(path / name)
            if found != wanted["sha256"]:
                raise DamagedCheckpointError(f"{path / name}: found sha256 {found}, wanted {wanted['sha256']}")
        state = json.loads((path / STATE).read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpointError(f"{path}: cannot be read: {error}") from error
    return Checkpoint(weights=load_file(path / WEIGHTS), optimizer=load_file(path / OPTIMIZER), state=state)


def load_last_good(run: Path, note: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that verifies; None when there is none. Each one passed over is noted and removed."""
    for leftover in run.glob(f"{ASIDE}*"):
        shutil.rmtree(leftover)
    for step in steps(run):
        path = run / f"{PREFIX}{step:08d}"
        try:
            return load(path)
        except DamagedCheckpointError as error:
            note(f"checkpoint refused: {error}; using the one before")
            shutil.rmtree(path)
    return None


@contextmanager
def held(run: Path, patience_seconds: float = 60.0) -> Iterator[None]:
    """Be the only writer of a run: a worker whose driver was killed may live on for a moment.

    The kernel frees the lock when its holder dies. Raises TimeoutError when somebody keeps it.
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


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
