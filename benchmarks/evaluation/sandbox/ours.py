"""The warm server behind its walls."""

import json
import time
from pathlib import Path

from benchmarks.evaluation.sandbox import PROGRAMS
from benchmarks.harness import Outcome
from components.execution.sandbox import Program, isolation, run_programs


def run(folder: Path) -> Outcome:
    """Programs a second, with the start of the jails in the time. The probes are tried before, once per process."""
    backend = isolation()
    programs = [Program(source=source, test=test) for source, test in json.loads((folder / PROGRAMS).read_text())]
    started = time.perf_counter()
    outcomes = run_programs(programs, timeout_seconds=10.0)
    seconds = time.perf_counter() - started
    passed = [outcome.passed for outcome in outcomes]
    runs = len(passed) + sum(passed)
    return Outcome(
        figure=len(passed) / seconds, answer={"passed": passed, "isolation": backend, "runs_per_second": runs / seconds}
    )
