"""Drills of checkpoints: killed writers, full disks, damaged and hostile files. Each says what it does to them."""

import json
import os
import pickle  # what an attacker would place; the product imports it nowhere
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components.training.engine import checkpoint, checkpoint_writer
from components.training.engine.checkpoint import Checkpoint, DamagedCheckpointError, Piece, load_last_good
from components.training.engine.checkpoint_writer import UnwrittenCheckpointError, Writer
from tests.training.drills import CASES, OPERATIONS, pieces_of, write_steps
from tests.training.runs import recipe, run_small, same

DRILLS = [sys.executable, "-m", "tests.training.drills"]


def drill(*arguments: str, before: list[str] | None = None) -> list[Any]:
    """Run one in a process of its own; what it printed, line by line."""
    done = subprocess.run([*(before or []), *DRILLS, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.drill
def test_a_writer_killed_at_any_file_operation_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    """F2. SIGKILL in the place of each open, write (half written), fsync, mkdir, rename, unlink and rmdir in turn, of
    one worker and of two, of a new step and of one that is there."""
    printed = drill("kill", str(tmp_path))
    assert {each for each in printed if isinstance(each, str)} == set(OPERATIONS)
    for size, step in CASES:
        seen = [each for each in printed if isinstance(each, dict) and each["case"] == [size, step]]
        assert len(seen) > 20
        assert [each["killed"] for each in seen] == [True] * (len(seen) - 1) + [False]
        loaded = [each["loaded"] for each in seen]
        # Of the same step the old one goes just before the new one comes, and then the one before remains.
        assert set(loaded) == ({1, 2} if step == 2 else {2, 3})
        assert (loaded[0], loaded[-1]) == (2, step)
        if (size, step) == (1, 3):
            assert loaded == sorted(loaded), "the new one appears once and stays"
        for each in seen:
            assert not each["notes"], "a reader saw something damaged"
            assert not [name for name in each["left"] if name.startswith(checkpoint.ASIDE)]


def room_of(megabytes: int, folder: Path) -> list[str] | None:
    """What a command is put behind to see a file system of that size at `folder`; None where that is not permitted."""
    shell = f'mount -t tmpfs -o size={megabytes}m none "{folder}" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", shell, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode:
        return None
    return command


@pytest.mark.drill
@pytest.mark.parametrize("how", ["disk", "limit"])
def test_a_full_disk_ends_the_run_clearly_and_the_same_again_passes(tmp_path: Path, how: str) -> None:
    """F7. A file system of 8 MB filled up at step 5, or a limit of 100 kB a file from then on."""
    before = room_of(8, tmp_path) if how == "disk" else []
    if before is None:
        pytest.skip("mounting is not permitted here; the limit's drill runs")
    (seen,) = drill("full", str(tmp_path), how, before=before)
    reason = "No space left on device" if how == "disk" else "File too large"
    assert f"cannot be written below {tmp_path}/run: {reason}; free the cause and run again" in seen["error"]
    assert not [name for name in seen["left"] if name.startswith(checkpoint.ASIDE)]
    assert seen["good"] == 4
    assert "resumed at step 4" in seen["notes"][0]
    assert seen["equal"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


DAMAGE: dict[str, Callable[[Path], None]] = {"flip": flip, "truncate": truncate, "delete": Path.unlink}


@pytest.mark.parametrize("how", DAMAGE)
def test_any_damaged_file_is_named_and_the_one_before_is_used(tmp_path: Path, how: str) -> None:
    """F6. One byte flipped, the last byte cut off, or the file deleted: each file of a checkpoint of two workers."""
    write_steps(tmp_path / "good", [1, 2], size=2)
    names = sorted(path.name for path in (tmp_path / "good" / "step-00000002").iterdir())
    assert len(names) == 4
    for name in names:
        run = tmp_path / name
        shutil.copytree(tmp_path / "good", run)
        DAMAGE[how](run / "step-00000002" / name)
        notes: list[str] = []
        found = load_last_good(run, notes.append)
        assert found is not None
        assert found.step == 1
        assert len(notes) == 1
        assert f"step-00000002/{name}: " in notes[0]
        assert checkpoint.steps(run) == [1]


def test_a_manifest_that_still_reads_as_one_is_not_believed(tmp_path: Path) -> None:
    """F6. A digit of where a piece begins, changed in the manifest, which no file's hash covers."""
    write_steps(tmp_path, [1], size=2)
    path = tmp_path / "step-00000001"
    manifest = json.loads((path / checkpoint.MANIFEST).read_bytes())
    manifest["tensors"]["momentum.a"]["pieces"][1][1] -= 1
    (path / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DamagedCheckpointError, match=r"checkpoint\.json: found sha256 \w+, wanted"):
        Checkpoint(path)


def test_when_all_are_damaged_the_run_says_so_and_starts_from_its_beginning(tmp_path: Path) -> None:
    """F6. A byte flipped in every checkpoint that is left."""
    _, whole = run_small(tmp_path, steps=12, how=recipe(checkpoint_seconds=0.0))
    for path in tmp_path.glob("step-*/pieces-*"):
        flip(path)
    notes: list[str] = []
    _, again = run_small(tmp_path, steps=12, note=notes.append)
    assert [note.split(":")[0] for note in notes] == ["checkpoint refused"] * 2 + ["no checkpoint of 2 is good"]
    assert same(whole, again)


class Payload:
    """Says so when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.witness,))


def test_a_pickle_in_the_place_of_weights_never_runs(tmp_path: Path) -> None:
    """B2. A pickled program as the pieces, first as it is, then with a manifest that vouches for it."""
    write_steps(tmp_path, [1, 2], size=1)
    path, witness = tmp_path / "step-00000002", tmp_path / "witness"
    planted = path / "pieces-00000-of-00001.safetensors"
    planted.unlink()
    torch.save({"weight.a": Payload(witness)}, planted)
    with pytest.raises(DamagedCheckpointError, match="safetensors: found"):
        Checkpoint(path).verify()
    for content in (planted.read_bytes(), pickle.dumps(Payload(witness))):
        planted.unlink()
        manifest = json.loads((path / checkpoint.MANIFEST).read_bytes())
        manifest["files"][planted.name] = checkpoint_writer.write(planted, [content])
        del manifest["sha256"]
        manifest["sha256"] = checkpoint.digest(manifest)
        (path / checkpoint.MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(DamagedCheckpointError, match="safetensors: cannot be read: SafetensorError"):
            Checkpoint(path).verify()
    found = load_last_good(tmp_path, lambda _: None)
    assert found is not None
    assert found.step == 1
    assert not witness.exists()
    with planted.parent.parent.joinpath("alive").open("wb") as file:  # the payload does run where it is let
        pickle.dump(Payload(witness), file)
    pickle.loads((tmp_path / "alive").read_bytes())
    assert witness.exists()


def test_any_part_is_read_from_the_files_that_hold_it(tmp_path: Path) -> None:
    whole = torch.arange(60.0)
    cuts = [0, 7, 40, 60]
    writers = [Writer(tmp_path, rank=rank, size=3) for rank in range(3)]
    for rank, writer in enumerate(writers):
        part = whole[cuts[rank] : cuts[rank + 1]].clone()
        writer.save(5, [Piece(name="weight.a", tensor=part, shape=(12, 5), start=cuts[rank])], {})
    for writer in writers:
        writer.wait()
    found = Checkpoint(tmp_path / "step-00000005")
    assert torch.equal(found.weights()["a"], whole.view(12, 5))
    for start, length in ((0, 60), (6, 2), (7, 33), (39, 1), (5, 50), (59, 1)):
        assert torch.equal(found.read("weight.a", start, length), whole[start : start + length])
    with pytest.raises(DamagedCheckpointError, match=r"weight\.a has shape \[12, 5\], wanted \(60,\)"):
        found.load([Piece(name="weight.a", tensor=torch.zeros(60), shape=(60,))])
    with pytest.raises(DamagedCheckpointError, match=r"holds no weight\.b; it is of another model"):
        found.read("weight.b")


def test_without_the_other_worker_nothing_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker 1 of 2 never writes its pieces, because it died: worker 0 gives up when it fails itself."""
    monkeypatch.setattr(checkpoint_writer, "PATIENCE_AFTER_FAILURE_SECONDS", 0.1)
    write_steps(tmp_path, [1], size=2)

    class ConnectionLostError(Exception):
        """What the survivor sees."""

    writer = Writer(tmp_path, rank=0, size=2)
    with pytest.raises(ConnectionLostError), writer:
        writer.save(2, pieces_of(2, 0, 2), {})
        raise ConnectionLostError
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_failed_checkpoint_is_heard_of_at_the_next(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the directory should be")
    writer = Writer(tmp_path / "run")
    writer.save(1, pieces_of(1, 0, 1), {})
    with pytest.raises(UnwrittenCheckpointError, match="the checkpoint of step 1 cannot be written below"):
        writer.save(2, pieces_of(2, 0, 1), {})


def test_the_loop_goes_on_while_a_checkpoint_is_written_and_what_it_saves_is_of_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing waits until the loop has changed every tensor."""
    changed = threading.Event()
    original = checkpoint_writer.write

    def late(path: Path, content: Any) -> dict[str, Any]:
        assert changed.wait(30)
        return original(path, content)

    monkeypatch.setattr(checkpoint_writer, "write", late)
    pieces = pieces_of(1, 0, 1)
    with Writer(tmp_path) as writer:
        writer.save(1, pieces, {})
        for piece in pieces:
            piece.tensor.fill_(2.0)
        changed.set()
    assert set(Checkpoint(tmp_path / "step-00000001").read("momentum.a").tolist()) == {1.0}
