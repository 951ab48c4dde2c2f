"""The micro-batch that is left after workers were killed for their memory."""

from pathlib import Path

import pytest
from ray.exceptions import OutOfMemoryError

from components.core.config import Settings
from components.training.run import micro_batch, workers


def test_each_kill_halves_what_was_left_until_one_sample_is(tmp_path: Path) -> None:
    assert micro_batch.samples_of(tmp_path, 5) == 5
    told = [micro_batch.halve(tmp_path, 5) for _ in range(4)]
    assert [each and each.split()[-1] for each in told] == ["3", "2", "1", None]
    assert micro_batch.samples_of(tmp_path, 5) == 1


def test_the_kernels_count_is_read_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("pgfault 12\noom_kill 29\noom_kill_other 7\n")
    assert micro_batch.kernel_kills(tmp_path / "vmstat") == 29
    assert micro_batch.kernel_kills(tmp_path / "absent") == 0


@pytest.mark.parametrize(
    ("error", "kills", "left"),
    [
        (OutOfMemoryError("1 worker(s) were killed due to the node running low on memory."), 3, 4),
        (RuntimeError("The actor is dead because its worker process has died."), 4, 4),
        (RuntimeError("The actor is dead because its worker process has died."), 3, 8),
        (ValueError("a step failed"), 4, 8),
    ],
)
def test_only_a_kill_for_memory_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kills: int, left: int
) -> None:
    monkeypatch.setattr(micro_batch, "KERNEL", tmp_path / "vmstat")
    (tmp_path / "vmstat").write_text("oom_kill 3\n")
    shortage = workers.Shortage("pretrain", Settings(state=tmp_path), tmp_path, 8)
    (tmp_path / "vmstat").write_text(f"oom_kill {kills}\n")
    shortage.after_exception(None, {1: error})
    assert micro_batch.samples_of(tmp_path, 8) == left
