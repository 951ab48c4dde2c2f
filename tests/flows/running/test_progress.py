"""Lines of a running cycle: how far a stage is, and the figures that people follow it by."""

import io
from typing import Any

import pytest
from rich.console import Console

from flows.running import progress


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> progress.Lines:
    """Lines that do not wait between each other."""
    monkeypatch.setattr(progress, "LINE_PERIOD_SECONDS", 0.0)
    return progress.Lines(Console(file=io.StringIO(), width=200))


def last_line(lines: progress.Lines, stage: str, *metrics: tuple[str, float]) -> str:
    events: list[dict[str, Any]] = [{"kind": "progress", "done": 30, "total": 120, "unit": "seconds"}]
    events += [{"kind": "metric", "name": name, "value": value} for name, value in metrics]
    lines.started(stage, None)
    lines.update(stage, events)
    file = lines._console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()[-1]


def test_training_is_followed_by_its_loss_and_speed(lines: progress.Lines) -> None:
    told = (("loss", 2.5), ("tokens_per_second", 12_000.0), ("memory_bytes", 1e9), ("data_stall_seconds", 0.01))
    found = last_line(lines, "pretrain", *told, ("data_stall_share", 0.001))
    assert found.endswith("25% of 120 seconds  loss 2.5  tokens_per_second 12,000")


def test_other_stages_show_what_they_told_last(lines: progress.Lines) -> None:
    found = last_line(lines, "clean", ("a", 1.0), ("b", 2.0), ("system/cpu", 9.0), ("c", 3.0), ("d", 4.0))
    assert found.endswith("25% of 120 seconds  b 2  c 3  d 4")
