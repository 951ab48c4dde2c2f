"""Write a run's checkpoints while it goes on: every worker its own pieces, in a thread, at most one at a time.

`save` waits for the one before and copies the pieces to host memory; that is all that the loop stands still for. The
thread then writes and hashes in one pass, says that it is done by a listing beside its file, and worker 0, once every
worker has said so, writes the manifest and renames the directory: the moment in which the checkpoint exists.
Covers: any number of workers on one file system.  Not covered: workers that share none.
"""

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from components.training.engine.checkpoint import ASIDE, MANIFEST, STATE, Piece, digest, name_of, remove, steps
from components.training.engine.devices.cores import free

# safetensors' names of types. Its own writer copies all tensors first, and the file would be read again to be hashed.
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64", torch.uint8: "U8"}
POLL_SECONDS = 0.01
# How long worker 0 waits for the others' listings: their disks may be slower; a dead one is noticed elsewhere first.
PATIENCE_SECONDS = 600.0
PATIENCE_AFTER_FAILURE_SECONDS = 5.0


class UnwrittenCheckpointError(Exception):
    """A checkpoint could not be written; what was written of it is gone and the one before is as it was."""


class Writer:
    """One worker's part of every checkpoint of a run. A context: leaving it completes the one that is in flight.

    attempt             a number that all workers of this attempt share and no other attempt has
    stalled_seconds     how long the loop stood still for checkpoints so far
    written_bytes       of this worker's pieces so far
    """

    def __init__(self, run: Path, *, rank: int = 0, size: int = 1, attempt: int = 0, keep: int = 2) -> None:
        self.run, self.rank, self.size, self.attempt, self.keep = run, rank, size, attempt, keep
        self.stalled_seconds = 0.0
        self.num_saved = 0
        self.written_bytes = 0
        self._failed = threading.Event()
        self._buffers: dict[str, Tensor] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint", initializer=free)
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._failed.set()  # the others may be gone: do not wait for them for long
        started = time.monotonic()
        try:
            self.wait()
        except UnwrittenCheckpointError:
            if kind is None:  # else the first error is the one to hear of
                raise
        finally:
            self.stalled_seconds += time.monotonic() - started
            self._pool.shutdown()

    def save(self, step: int, pieces: Sequence[Piece], state: dict[str, Any]) -> None:
        """Begin the checkpoint of a step. `state` counts on worker 0. Raises UnwrittenCheckpointError for the one
        before, when that failed."""
        started = time.monotonic()
        self.wait()
        held = [piece for piece in pieces if len(piece.tensor)]
        self._copy(held)
        content = json.dumps(state).encode()
        parts = {
            each.name: {"shape": list(each.shape), "start": each.start, "length": len(each.tensor)} for each in held
        }
        self._pending = self._pool.submit(self._complete, step, parts, content)
        self.num_saved += 1
        self.stalled_seconds += time.monotonic() - started

    def wait(self) -> None:
        """Return once no checkpoint is in flight. Raises UnwrittenCheckpointError when the last one failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _copy(self, pieces: Sequence[Piece]) -> None:
        """Into buffers of host memory that are kept: at most one checkpoint is in flight."""
        on_gpu = False
        for name, tensor in ((each.name, each.tensor.detach()) for each in pieces):
            on_gpu = on_gpu or tensor.is_cuda
            if name not in self._buffers:
                self._buffers[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers[name].copy_(tensor, non_blocking=True)
        if on_gpu:
            torch.cuda.current_stream().synchronize()

    def _complete(self, step: int, held: dict[str, dict[str, Any]], state: bytes) -> None:
        """Everything after the copy; in the thread."""
        aside = self.run / f"{ASIDE}{self.attempt:x}-{step:08d}"
        try:
            self.run.mkdir(parents=True, exist_ok=True)
            aside.mkdir(exist_ok=True)
            self._write_pieces(aside, held)
            if self.rank == 0:
                self._publish(aside, step, state)
            else:
                self._await(lambda: [] if not aside.exists() else ["worker 0"])
                if not (self.run / name_of(step)).exists():
                    raise OSError("worker 0 gave up")
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise UnwrittenCheckpointError(
                f"the checkpoint of step {step} cannot be written below {self.run}: {error.strerror or error}; free "
                "the cause and run again: training goes on from the checkpoint before"
            ) from error

    def _write_pieces(self, aside: Path, held: dict[str, dict[str, Any]]) -> None:
        file = f"pieces-{self.rank:05d}-of-{self.size:05d}.safetensors"
        tensors = sorted(((name, self._buffers[name]) for name in held), key=lambda each: -each[1].element_size())
        written = write(aside / file, _safetensors(tensors))
        self.written_bytes += written["bytes"]
        listing = json.dumps({"file": file, **written, "pieces": held}).encode()
        unseen = aside / f"{_listing(self.rank)}.part"
        write(unseen, [listing])
        unseen.rename(aside / _listing(self.rank))

    def _publish(self, aside: Path, step: int, state: bytes) -> None:
        files: dict[str, dict[str, Any]] = {STATE: write(aside / STATE, [state])}
        names = [_listing(rank) for rank in range(self.size)]
        self._await(lambda: [name for name in names if not (aside / name).exists()])
        tensors: dict[str, dict[str, Any]] = {}
        for name in names:
            listing = json.loads((aside / name).read_bytes())
            files[listing["file"]] = {"bytes": listing["bytes"], "sha256": listing["sha256"]}
            for tensor, held in listing["pieces"].items():
                entry = tensors.setdefault(tensor, {"shape": held["shape"], "pieces": []})
                entry["pieces"].append([listing["file"], held["start"], held["length"]])
            (aside / name).unlink()
        content = {"step": step, "num_workers": self.size, "files": files, "tensors": tensors}
        write(aside / MANIFEST, [json.dumps({**content, "sha256": digest(content)}, indent=1).encode()])
        sync(aside)
        out = self.run / name_of(step)
        if out.exists():
            remove(out)
        aside.rename(out)
        sync(self.run)
        # Later steps than this one belong to a course that was given up.
        later = [each for each in steps(self.run) if each > step]
        for old in later + [each for each in steps(self.run) if each <= step][self.keep :]:
            remove(self.run / name_of(old))

    def _await(self, missing: Any) -> None:
        """Poll until nothing is missing. Raises OSError when patience ends."""
        started = time.monotonic()
        while absent := missing():
            patience = PATIENCE_AFTER_FAILURE_SECONDS if self._failed.is_set() else PATIENCE_SECONDS
            if time.monotonic() - started > patience:
                raise OSError(f"nothing from {', '.join(absent)} within {patience:.0f} s")
            time.sleep(POLL_SECONDS)


def write(path: Path, content: Iterable[Any]) -> dict[str, Any]:
    """Write and fsync a new file; its bytes and sha256, of what was meant, not of what could be read again."""
    sha256, num_bytes = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        for part in content:
            left = memoryview(part)
            sha256.update(left)
            num_bytes += len(left)
            while left:
                left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return {"bytes": num_bytes, "sha256": sha256.hexdigest()}


def sync(path: Path) -> None:
    """fsync a directory: the names in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _safetensors(tensors: Sequence[tuple[str, Tensor]]) -> Iterable[Any]:
    """A file of safetensors, part by part: length of the header, header, tensors (widest elements first: aligned)."""
    header, end = {}, 0
    for name, tensor in tensors:
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    yield len(content).to_bytes(8, "little")
    yield content
    for _, tensor in tensors:
        yield tensor.reshape(-1).view(torch.uint8).numpy()


def _listing(rank: int) -> str:
    return f"pieces-{rank:05d}.json"
