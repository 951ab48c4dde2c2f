"""What tests do to a process of its own: kill a writer at every file operation, fill its disk. Run as a module.

python -m tests.training.drills kill FOLDER NUM_WORKERS STEP    one JSON line for each operation
python -m tests.training.drills full FOLDER (disk|limit)        one JSON object
"""

import json
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from components.training.engine import checkpoint
from components.training.engine.checkpoint import Checkpoint, Piece, load_last_good, steps
from components.training.engine.checkpoint_writer import UnwrittenCheckpointError, Writer

OPERATIONS = ("open", "write", "fsync", "rename", "unlink", "rmdir", "mkdir")
NUMBERS = 1000
# Workers, and the step that is written after 1 and 2: the next one, or the last one once more.
CASES = ((1, 3), (2, 3), (1, 2))


def pieces_of(step: int, rank: int, size: int) -> list[Piece]:
    """A share of two tensors whose numbers say which step they are of."""
    half = NUMBERS // size
    return [
        Piece(name=name, tensor=torch.full((half,), float(step)), shape=(size, half), start=rank * half)
        for name in (f"{checkpoint.WEIGHT}a", "momentum.a")
    ]


def write_steps(run: Path, numbers: list[int], size: int, keep: int = 2) -> None:
    """Checkpoints of these steps, by `size` writers in this process."""
    with ExitStack() as stack:
        writers = [stack.enter_context(Writer(run, rank=rank, size=size, keep=keep)) for rank in range(size)]
        for step in numbers:
            for rank, writer in enumerate(writers):
                writer.save(step, pieces_of(step, rank, size), {"step": step})
            for writer in writers:
                writer.wait()


def kill_at(number: int) -> None:
    """SIGKILL this process in the place of its `number`-th file operation; in the midst of it when it writes."""
    done = 0
    lock = threading.Lock()  # two writers: the one that dies lets the other start nothing more

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            with lock:
                if done == number:
                    if name == "write":
                        call(arguments[0], arguments[1][: len(arguments[1]) // 2])
                    print(json.dumps(name), flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)
                done += 1
            return call(*arguments, **options)

        return counted

    for name in OPERATIONS:
        setattr(os, name, wrap(name, getattr(os, name)))


def what_is_there(run: Path) -> dict[str, Any]:
    """What a reader finds after a kill: every checkpoint that can be seen must verify."""
    visible = steps(run)
    for step in visible:
        Checkpoint(run / checkpoint.name_of(step)).verify()
    notes: list[str] = []
    found = load_last_good(run, notes.append)
    assert found is not None
    values = torch.cat([found.read("momentum.a"), found.weights()["a"].view(-1)])
    assert values.unique().tolist() == [float(found.step)], "numbers of another step"
    return {"visible": visible, "loaded": found.step, "notes": notes, "left": [path.name for path in run.iterdir()]}


def kill_at_each(folder: Path, size: int, step: int) -> None:
    """Checkpoints 1 and 2 are there; kill whoever writes `step` at its first operation, its second, and so on."""
    write_steps(folder / "before", [1, 2], size)
    for number in range(1000):
        run = folder / str(number)
        shutil.copytree(folder / "before", run)
        child = os.fork()
        if child == 0:
            kill_at(number)
            write_steps(run, [step], size)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"case": [size, step], "killed": os.WIFSIGNALED(status), **what_is_there(run)}), flush=True)
        write_steps(run, [step], size)  # the same again passes
        assert load_last_good(run, print).step == step  # type: ignore[union-attr]
        shutil.rmtree(run)
        if not os.WIFSIGNALED(status):
            return


def fill(folder: Path, how: str) -> dict[str, Any]:
    """Train while the disk is full from step 5 on, then again with room."""
    from tests.training.runs import recipe, run_small, same  # noqa: PLC0415 - seconds, which the other drill saves

    run, filler = folder / "run", folder / "filler"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    every = recipe(checkpoint_seconds=0.0)
    error = ""

    def take_room(row: Any) -> None:
        if row.step != 5:
            return
        if how == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
            return
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(65536)):
                    pass
            except OSError:
                pass

    try:
        run_small(run, steps=12, how=every, report=take_room)
    except UnwrittenCheckpointError as found:
        error = str(found)
    left = [path.name for path in run.iterdir()]
    good = load_last_good(run, print)
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    filler.unlink(missing_ok=True)
    notes: list[str] = []
    _, again = run_small(run, steps=12, how=every, note=notes.append)
    _, whole = run_small(folder / "whole", steps=12)
    return {
        "error": error,
        "left": left,
        "good": good.step if good else None,
        "notes": notes,
        "equal": same(again, whole),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "kill":
        for case in CASES:
            kill_at_each(Path(sys.argv[2]) / "-".join(map(str, case)), *case)
    else:
        print(json.dumps(fill(Path(sys.argv[2]), sys.argv[3])))
