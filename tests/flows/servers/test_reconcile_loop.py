"""The real loop as a process beside a real repository, without Ray, Prefect or MLflow: nothing ends it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from components.core.config import Settings
from components.core.graph.closure import ROOT
from components.machine import services
from components.release import environment
from components.release.config import ReleaseConfig
from components.release.environment import EnvironmentFile
from components.release.status import EnvironmentStatus, read_status
from components.serving.versions import WeightedVersion

PATIENCE_SECONDS = 120
FAST = "from flows import reconcile; reconcile.PERIOD_SECONDS = 0.2; reconcile.main()"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(state=tmp_path_factory.mktemp("state"), ray_address="127.0.0.1:9")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with parameters of its own."""
    made = tmp_path_factory.mktemp("folder")
    (made / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return made


def start(settings: Settings, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    variables = {"OVERNIGHT_STATE": str(settings.state), "OVERNIGHT_RAY_ADDRESS": str(settings.ray_address)}
    variables |= {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, cwd=folder, env=os.environ | variables, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def loop(settings: Settings, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = start(settings, folder, "-c", FAST)
    yield process
    process.kill()
    process.wait()


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def entry(settings: Settings) -> EnvironmentStatus | None:
    status = read_status(settings)
    return status.environments[0] if status and status.environments else None


def push(settings: Settings, folder: Path, content: bytes) -> str:
    clone = folder / f"clone-{time.monotonic_ns()}"
    subprocess.run(["git", "clone", "-q", settings.state / "environments.git", clone], check=True)
    (clone / "production.yaml").write_bytes(content)
    git = ["git", "-C", clone, "-c", "user.name=Ada", "-c", "user.email=ada@localhost"]
    subprocess.run([*git, "commit", "-qam", "By hand"], check=True)
    subprocess.run([*git, "push", "-q"], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def test_the_loop_says_what_is_wrong_and_takes_the_next_good_commit(
    settings: Settings, folder: Path, loop: subprocess.Popen[bytes]
) -> None:
    until(lambda: (found := entry(settings)) is not None and "nothing answers there" in (found.reason or ""))
    for bad, said in (
        (b"environment: production\nversions: &all\n  - also: *all\n", "has the anchor &all"),
        (b"[" * 3000, "nested more than 40 deep"),
        (b"environment: \xe9", "needed UTF-8; save it as UTF-8"),
    ):
        commit = push(settings, folder, bad)

        def told(words: str = said, head: str = commit[:12]) -> bool:
            reason = (entry(settings) or pytest.fail("no status")).reason or ""
            return words in reason and head in reason

        until(told)
    file = EnvironmentFile(
        environment="production", versions=(WeightedVersion(version=1, digest="0" * 64, weight=100),)
    )
    good = push(settings, folder, environment.render(file).encode())
    until(lambda: (found := entry(settings)) is not None and found.desired_commit == good)
    assert loop.poll() is None


def test_the_loop_lives_through_parameters_and_a_status_that_cannot_be_read(
    settings: Settings, folder: Path, loop: subprocess.Popen[bytes]
) -> None:
    until(lambda: entry(settings) is not None)
    text = (folder / "params.yaml").read_bytes()
    (folder / "params.yaml").write_bytes(b"release: [" * 1000)
    until(lambda: "params.yaml" in ((entry(settings) or pytest.fail("no status")).reason or ""))
    (settings.state / "status.json").write_text("{")
    (folder / "params.yaml").write_bytes(text)
    until(lambda: (settings.state / "status.json").read_text() != "{")
    until(lambda: (found := entry(settings)) is not None and "params.yaml" not in (found.reason or ""))
    assert loop.poll() is None


def test_a_loop_that_is_killed_is_started_again(settings: Settings, folder: Path) -> None:
    environment.read(settings, "production", ReleaseConfig())
    parent = start(settings, folder, "-m", "flows.servers.supervise")

    def child() -> psutil.Process | None:
        with contextlib.suppress(psutil.Error):  # one that has just ended
            loops = [each for each in psutil.Process(parent.pid).children() if "flows.reconcile" in each.cmdline()]
            return loops[0] if loops else None
        return None

    try:
        until(lambda: child() is not None)
        first = child()
        assert first is not None
        first.send_signal(signal.SIGKILL)
        until(lambda: (found := child()) is not None and found.pid != first.pid)
        second = child()
        assert second is not None
        parent.kill()
        parent.wait()
        until(lambda: not second.is_running() or second.status() == psutil.STATUS_ZOMBIE)
    finally:
        parent.kill()
        parent.wait()


def test_a_service_that_was_killed_has_died_and_one_that_was_stopped_has_not(settings: Settings) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert not services.died(settings, "sleeper")
    started = services.start(settings, "sleeper", command, url="", ready=lambda: True)
    assert not services.died(settings, "sleeper")
    psutil.Process(started.pid).kill()
    until(lambda: services.died(settings, "sleeper"))
    services.stop(settings, "sleeper")
    assert not services.died(settings, "sleeper")
