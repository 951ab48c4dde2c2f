"""How the end of a stage's process is read."""

from pathlib import Path

import pytest

from flows import stage
from flows.graph import read_graph


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
    failure = stage._failure(read_graph()[0], None, code, log, 1.0, 600.0)
    assert failure.transient is transient
    assert ("was killed" in str(failure)) is transient
