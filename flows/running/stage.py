"""Run one stage of the graph as a process: logs to a file, events to the watcher, its errors to one line."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from components.core.config import Settings, environment
from components.core.errors import OvernightError
from components.core.events import Events, read_events
from components.core.graph.stages import Stage
from components.core.private import folder
from components.machine import cluster, services
from components.training.engine.devices import cores
from components.training.planning import hardware
from dashboards.report.cycle_record import StageResult, Status
from flows.running.graph import output_manifest

SAMPLE_SECONDS = 5.0
# DVC's word for a signal: -9 from a shell that made way for the command, 128 + 9 from one that waited for it.
_KILLED = re.compile(r"exited with (-\d+|1(2[89]|[3-5]\d|6[0-4]))\b")


class StageFailed(OvernightError):  # noqa: N818  reads as what happened
    """A stage that ended without its artifact."""

    def __init__(self, stage: str, reason: str, *, exit_code: int, transient: bool) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.exit_code = exit_code
        self.transient = transient


def cached(stage: Stage) -> StageResult:
    """The result of a stage that DVC finds up to date."""
    return _result(stage, "cached", 0.0, 0.0, 0)


def run(stage: Stage, settings: Settings, *, timeout_seconds: float, watch: Callable[[], None]) -> StageResult:
    """Have DVC bring one stage up to date and say how. `watch` is called four times a second while it runs.

    Raises StageFailed with the stage's own line, or the signal that ended it.
    """
    started = time.monotonic()
    events = Events(stage.name, settings)
    _, offset = read_events(events.path)
    log = settings.state / "logs" / (settings.cycle or "manual") / f"{stage.name}.log"
    folder(log.parent.parent)
    folder(log.parent)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.running.repro", stage.name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_variables(stage, settings),
        )
    try:
        peak = _wait(process, events, settings, started + timeout_seconds, watch)
    finally:
        _end(process)
    seen, _ = read_events(events.path, offset)
    kinds = {event["kind"]: event for event in seen}
    if process.returncode != 0:
        raise _failure(stage, kinds.get("failed"), process.returncode, log, time.monotonic() - started, timeout_seconds)
    if "finished" not in kinds:
        return _result(stage, "cached", time.monotonic() - started, 0.0, peak)
    startup = sum(e["value"] for e in seen if e["kind"] == "metric" and e["name"] == "startup_seconds")
    return _result(stage, "ran", time.monotonic() - started, kinds["finished"]["seconds"] - startup, peak)


def _result(stage: Stage, status: Status, seconds: float, work_seconds: float, peak: int) -> StageResult:
    return StageResult(
        name=stage.name,
        status=status,
        seconds=seconds,
        work_seconds=max(0.0, work_seconds),
        digest=output_manifest(stage).digest,
        peak_memory_bytes=peak,
    )


def _variables(stage: Stage, settings: Settings) -> dict[str, str]:
    """The stage's environment: this interpreter first on the path, the cycle's id and start, its Ray."""
    variables = environment()
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables.get('PATH', '')}"
    variables["OVERNIGHT_STATE"] = str(settings.state)
    if settings.cycle:
        variables["OVERNIGHT_CYCLE"] = settings.cycle
    if settings.cycle_started_at:
        variables["OVERNIGHT_CYCLE_STARTED_AT"] = repr(settings.cycle_started_at)
    if settings.stage_ends_at:
        variables["OVERNIGHT_STAGE_ENDS_AT"] = repr(settings.stage_ends_at)
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # it would double the time of every import
    if stage.meta.all_cores:  # workers and probes of others see to their threads
        return cores.waiting(1, "cuda" if hardware.gpus() else "cpu") | variables
    return cores.SLEEPING | variables


def _wait(
    process: subprocess.Popen[bytes], events: Events, settings: Settings, deadline: float, watch: Callable[[], None]
) -> int:
    """Wait for the process; returns the peak in bytes of the memory of this cycle: its own process with all
    descendants (the stage among them) and the Ray head with its."""
    peak, sampled = 0, 0.0
    head = services.running(settings, cluster.SERVICE)
    roots = [os.getpid(), *([head.pid] if head else [])]
    while process.poll() is None:
        if time.monotonic() > deadline:
            break
        if time.monotonic() - sampled > SAMPLE_SECONDS:
            sampled = time.monotonic()
            memory = sum(tree_memory_bytes(pid) for pid in roots)
            peak = max(peak, memory)
            events.metric("system/memory_bytes", memory, int(sampled))
            events.metric("system/cpu_percent", psutil.cpu_percent(), int(sampled))
        watch()
        try:
            process.wait(0.25)
        except subprocess.TimeoutExpired:
            continue
    watch()
    return peak


def tree_memory_bytes(pid: int) -> int:
    """Memory of a process and all its descendants. A page that several processes share is counted once in all (PSS):
    a dozen Ray processes would otherwise count the same libraries a dozen times."""
    total = 0
    for process in services.process_tree(pid):
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of the stage's process group behind, also when we are interrupted."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        except ProcessLookupError:
            process.wait()


def _failure(
    stage: Stage, failed: dict[str, Any] | None, code: int, log: Path, seconds: float, timeout_seconds: float
) -> StageFailed:
    if failed is not None:
        reason = f"{failed['error']} (log: {log})"
        return StageFailed(
            stage.name, reason, exit_code=failed["exit_code"], transient=bool(failed.get("transient", False))
        )
    if seconds > timeout_seconds:
        reason = f"stopped after its timeout of {timeout_seconds:.0f} s (log: {log})"
        return StageFailed(stage.name, reason, exit_code=1, transient=False)
    lines = log.read_text(errors="replace").strip().splitlines()
    # No word from the stage itself: its start failed (the last line says why), or somebody killed it.
    last = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "no output")
    killed = code < 0 or any(_KILLED.search(line) for line in lines[-5:])
    reason = f"{'was killed' if killed else f'exited with {code}'}: {last} (log: {log})"
    return StageFailed(stage.name, reason, exit_code=1, transient=killed)
