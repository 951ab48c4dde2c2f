"""How the end of a stage's process is read."""

from pathlib import Path

import pytest

from components.core.config import read_settings
from components.core.graph.stages import read_stages
from components.training.engine.devices import cores
from components.training.planning import hardware
from flows.running import stage


@pytest.mark.parametrize(
    ("code", "said", "transient"),
    [
        (-9, "", True),
        (255, "ERROR: failed to reproduce 'clean': failed to run: python -m x, exited with -9", True),
        (255, "ERROR: failed to reproduce 'clean': failed to run: python -m x, exited with 137", True),
        (255, "ERROR: failed to reproduce 'clean': failed to run: python -m x, exited with 143", True),
        (255, "ERROR: failed to reproduce 'clean': failed to run: python -m x, exited with 1", False),
        (255, "ERROR: failed to reproduce 'clean': failed to run: python -m x, exited with 127", False),
        (1, "ImportError: no module named x", False),
    ],
)
def test_a_killed_stage_may_be_tried_again_whatever_shell_ran_it(
    tmp_path: Path, code: int, said: str, transient: bool
) -> None:
    log = tmp_path / "stage.log"
    log.write_text(f"starting\n{said}\n")
    failure = stage._failure(read_stages()[0], None, code, log, 1.0, 600.0)
    assert failure.transient is transient
    assert ("was killed" in str(failure)) is transient


def test_only_stages_that_train_have_threads_that_spin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in cores.SPINNING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # no GPU's command there
    settings = read_settings({})
    stages = {each.name: each for each in read_stages()}
    for name, each in stages.items():
        expected = cores.SPINNING if name in ("sft", "align") else cores.SLEEPING
        found = stage._variables(each, settings)
        assert {key: found[key] for key in cores.SPINNING if key in found} == expected, name
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA H100, 81559\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert hardware.gpus()
    assert "GOMP_SPINCOUNT" not in stage._variables(stages["sft"], settings)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert stage._variables(stages["ingest"], settings)["GOMP_SPINCOUNT"] == "7"
