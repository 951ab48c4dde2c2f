"""Services outlive their starter, are found again by pid and creation time, and leave nothing behind when stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from components.core.config import Settings
from components.core.errors import BusyError, OvernightError
from components.machine import services

SLEEPER = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
time.sleep(600)
"""
CHILD = """
import time
from components.core.process import die_with_parent
die_with_parent()
print("up", flush=True)
time.sleep(600)
"""
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path)


def test_start_find_stop_with_children(settings: Settings) -> None:
    command = [sys.executable, "-c", SLEEPER]
    service = services.start(settings, "sleeper", command, url="none", ready=lambda: True)
    assert services.start(settings, "sleeper", command, url="none", ready=lambda: True) == service
    assert services.running(settings, "sleeper") == service
    deadline = time.monotonic() + 20
    while not (children := psutil.Process(service.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert services.stop(settings, "sleeper") and not services.stop(settings, "sleeper")
    assert services.running(settings, "sleeper") is None
    assert children and not any(child.is_running() and child.status() != "zombie" for child in children)


def test_a_recycled_pid_is_not_ours(settings: Settings) -> None:
    record = settings.state / "services" / "old.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"name": "old", "pid": os.getpid(), "created_at": 1.0, "url": ""}))
    assert services.running(settings, "old") is None
    assert not services.stop(settings, "old")


def test_one_that_ends_at_once_is_told_with_its_last_words(settings: Settings) -> None:
    command = [sys.executable, "-c", "import sys; print('no such option'); sys.exit(7)"]
    with pytest.raises(OvernightError, match=r"broken exited with 7: no such option \(whole log: .*broken.log\)"):
        services.start(settings, "broken", command, url="", ready=lambda: False)
    assert services.running(settings, "broken") is None


def test_one_that_is_never_ready_is_stopped(settings: Settings) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(OvernightError, match="was not ready after 0 s"):
        services.start(settings, "slow", command, url="", ready=lambda: False, timeout_seconds=0.3)
    assert services.running(settings, "slow") is None


def test_taken_port_names_port_holder_and_setting() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(
            BusyError, match=rf"port {port} .* the gateway .* process {os.getpid()} .*SETTING"
        ) as caught:
            services.require_port("127.0.0.1", port, "the gateway", "SETTING")
        assert caught.value.exit_code == 3
        assert services.port_open("127.0.0.1", port)
    services.require_port("127.0.0.1", services.free_port("127.0.0.1"), "the gateway", "SETTING")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent death signal is Linux's")
def test_a_child_dies_with_its_parent() -> None:
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"
