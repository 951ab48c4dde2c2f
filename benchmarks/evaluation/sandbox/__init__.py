"""Programs that nobody trusts, run and judged: our sandbox with all its walls against a fresh bare interpreter each.

The programs are of our own suite, right and wrong. The bare interpreter (`python -I`) holds nothing: no walls, no
limits but time, and a verdict that any program can forge. Ours runs each that passes once more, as its control: one
program is up to two runs, and both are in the time. As many workers as there are cores, on both sides.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison
from components.evaluation.measures.functional import built_in_suite, program

COMPARISON = Comparison(
    name="sandbox", unit="programs/s", peers={"bare_interpreter": 3.0}, peers_in_our_environment=True
)
PROGRAMS = "programs.json"
_ROUNDS = 4


def prepare(folder: Path) -> None:
    """Four rounds of each task with its own solution and with the next task's."""
    tasks = built_in_suite("short_tasks").tasks
    solutions = [task.canonical_solution or "" for task in tasks]
    shifted = [*solutions[1:], solutions[0]]
    pairs = [*zip(tasks, solutions, strict=True), *zip(tasks, shifted, strict=True)] * _ROUNDS
    programs = [program(task, each) for task, each in pairs]
    (folder / PROGRAMS).write_text(json.dumps([(each.source, each.test) for each in programs]))


def agree(folder: Path, ours: dict[str, Any], peer: dict[str, Any]) -> str:
    """Both must call the same programs passed, and not all of them: half have another task's solution."""
    if ours["passed"] != peer["passed"] or all(ours["passed"]):
        raise ValueError("the sandbox and the bare interpreter differ on honest programs, or pass all of them")
    return f"{sum(ours['passed'])} of {len(ours['passed'])} programs passed on both sides; walls: {ours['isolation']}"
