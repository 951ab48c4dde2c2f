"""A new interpreter for each program, and its exit code for a verdict."""

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.evaluation.sandbox import PROGRAMS
from benchmarks.harness import Outcome
from components.execution.toolchains import interpreter


def run(folder: Path) -> Outcome:
    """Programs a second."""
    programs = [source + test for source, test in json.loads((folder / PROGRAMS).read_text())]
    started = time.perf_counter()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        passed = list(pool.map(_passes, programs))
    return Outcome(figure=len(passed) / (time.perf_counter() - started), answer={"passed": passed})


def _passes(source: str) -> bool:
    command = [str(interpreter()), "-I", "-c", source]
    return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=30, check=False).returncode == 0
