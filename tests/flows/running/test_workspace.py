"""One cycle at a time; the kernel frees the workspace of a killed one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.config import Settings
from components.core.errors import BusyError
from flows.running.workspace import exclusive

HOLDER = """
import sys, time
from pathlib import Path
from components.core.config import Settings
from flows.running.workspace import exclusive
with exclusive(Settings(state=Path(sys.argv[1])), "a cycle"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_one_is_told_who_holds_it(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path / "state")
    with exclusive(settings, "a cycle"), pytest.raises(BusyError) as caught, exclusive(settings, "another"):
        raise AssertionError("two hold the workspace")
    assert f"held by process {os.getpid()} (a cycle) since" in str(caught.value)
    assert caught.value.exit_code == 3
    with exclusive(settings, "a third"):
        pass


def test_a_killed_holder_frees_it(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(BusyError, match=str(process.pid)), exclusive(Settings(state=tmp_path), "mine"):
            raise AssertionError("two hold the workspace")
        process.send_signal(signal.SIGKILL)
        process.wait()
    with exclusive(Settings(state=tmp_path), "mine"):
        pass
