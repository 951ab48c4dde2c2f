"""A stage as a command: one line and an exit code for what a person can cause, events for the rest."""

import errno
import json
from pathlib import Path

import pytest

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import StepConfig
from components.core.errors import DataError
from components.core.events import read_events
from components.core.graph import reads
from components.core.graph.closure import code_of
from components.core.step import main


class Config(StepConfig):
    fault: str = "none"


def run(config: Config, *, out: Path) -> Manifest:
    """Write an artifact, or fail as told."""
    with artifact.create(out, stage="example", config=config, inputs=(), code=Path(artifact.__file__)) as draft:
        (draft.path / "half").write_text("x")
        if config.fault == "data":
            raise DataError("rows.parquet: found 0 rows, needed 1")
        if config.fault == "disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        if config.fault == "bug":
            raise ZeroDivisionError("division by zero")
    assert draft.manifest is not None
    return draft.manifest


def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: dict[str, object]) -> int:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("OVERNIGHT_CYCLE", raising=False)
    monkeypatch.setattr("components.core.step.die_with_parent", lambda: None)  # the parent here is the test's own
    (tmp_path / "params.yaml").write_text(json.dumps({"example": section}))
    with pytest.raises(SystemExit) as caught:
        main("example", Config, run, [f"--params={tmp_path / 'params.yaml'}", f"--out={tmp_path / 'out'}"])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(tmp_path, monkeypatch, {}) == 0
    events, _ = read_events(tmp_path / "state" / "events" / "manual" / "example.jsonl")
    assert [each["kind"] for each in events] == ["started", "parameter", "finished"]
    assert events[-1]["digest"] == artifact.read(tmp_path / "out").digest


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("data", 2, "example: rows.parquet: found 0 rows, needed 1\n"),
        ("disk", 1, "example: the disk is full; nothing was replaced, free the cause and run it again\n"),
    ],
)
def test_what_a_person_can_mend_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str,
    code: int,
    said: str,
) -> None:
    assert start(tmp_path, monkeypatch, {"fault": fault}) == code
    assert capsys.readouterr().err == said
    events, _ = read_events(tmp_path / "state" / "events" / "manual" / "example.jsonl")
    assert events[-1]["kind"] == "failed" and events[-1]["exit_code"] == code and not events[-1]["transient"]
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*")), "temporaries are gone"


def test_a_mistake_in_params_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(tmp_path, monkeypatch, {"falt": "data"}) == 2
    assert "example.falt is not a key; did you mean example.fault?" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("components.core.step.die_with_parent", lambda: None)
    (tmp_path / "params.yaml").write_text('{"example": {"fault": "bug"}}')
    with pytest.raises(ZeroDivisionError):
        main("example", Config, run, [f"--params={tmp_path / 'params.yaml'}", f"--out={tmp_path / 'out'}"])
    assert (
        "ZeroDivisionError: division by zero"
        in (tmp_path / "state" / "events" / "manual" / "example.jsonl").read_text()
    )


def test_a_stage_that_was_surveyed_says_which_code_really_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC looks at the file again when the stage has ended, so dvc.lock keeps what the stage began with."""
    monkeypatch.chdir(tmp_path)
    assert start(tmp_path, monkeypatch, {}) == 0
    assert not reads.CODE.exists(), "nobody surveyed: a stage that is run by hand leaves nothing there"
    reads.CODE.mkdir(parents=True)
    (reads.CODE / "example.json").write_text('{"components/core/step.py": "of before"}')
    assert start(tmp_path, monkeypatch, {}) == 0
    assert json.loads((reads.CODE / "example.json").read_text()) == code_of(Path(__file__))
