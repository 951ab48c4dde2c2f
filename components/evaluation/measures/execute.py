"""Run the programs of a suite with given solutions, without any model: what the sandbox says of them."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.core.errors import DataError
from components.core.text import read_text
from components.evaluation.measures.functional import Suite, run_solutions

TIMEOUT_SECONDS = 10.0
MEMORY_BYTES = 2**29


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A task whose program did not pass, and why."""

    task_id: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How many tasks of a suite passed of those that could be run, and how long all of them took. `not_run` names the
    tasks that cannot be judged here, since their language has no toolchain or their own test imports what is absent,
    and what to install: no verdict on a solution."""

    passed: int
    total: int
    seconds: float
    failures: tuple[Failure, ...]
    not_run: tuple[Failure, ...]


def execute(
    suite: Suite,
    solutions: Literal["canonical", "none"] | Path,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    memory_bytes: int = MEMORY_BYTES,
) -> Execution:
    """Run every task with its canonical solution, with none (the bare prompt), or with those of a file.

    A file has one JSON object a line: task_id, completion. Raises DataError for a file that cannot be read, a task
    without a completion, a completion without a task, and canonical solutions that the suite does not have.
    """
    completions = _completions(suite, solutions)
    started = time.monotonic()
    outcomes = run_solutions(
        [(task, completions[task.task_id]) for task in suite.tasks],
        timeout_seconds=timeout_seconds,
        memory_bytes=memory_bytes,
    )
    causes = [
        (Failure(task_id=task.task_id, cause=f"{outcome.cause}: {outcome.detail}".removesuffix(": ")), outcome)
        for task, outcome in zip(suite.tasks, outcomes, strict=True)
        if not outcome.passed
    ]
    not_run = tuple(failure for failure, outcome in causes if outcome.cause == "not_run")
    failures = tuple(failure for failure, outcome in causes if outcome.cause != "not_run")
    total = len(outcomes) - len(not_run)
    return Execution(
        passed=total - len(failures),
        total=total,
        seconds=time.monotonic() - started,
        failures=failures,
        not_run=not_run,
    )


def _completions(suite: Suite, solutions: Literal["canonical", "none"] | Path) -> dict[str, str]:
    """task_id -> completion for every task of the suite."""
    if solutions == "canonical":
        known = {task.task_id: each for task in suite.tasks if (each := task.canonical_solution) is not None}
        if len(known) < len(suite.tasks):
            raise DataError(f"suite {suite.name} has no canonical solutions; name a file with --solutions FILE")
        return known
    if solutions == "none":
        return {task.task_id: "" for task in suite.tasks}
    assert isinstance(solutions, Path)
    wanted = {task.task_id for task in suite.tasks}
    completions: dict[str, str] = {}
    for where, task_id, completion in _lines(solutions):
        if task_id not in wanted:
            raise DataError(f"{where}: task_id {task_id!r} is not in suite {suite.name}")
        if task_id in completions:
            raise DataError(f"{where}: task_id {task_id!r} is there twice; one completion per task")
        completions[task_id] = completion
    if missing := sorted(wanted - set(completions)):
        raise DataError(f"{solutions}: no completion for {missing[0]!r} (and {len(missing) - 1} more)")
    return completions


def _lines(path: Path) -> list[tuple[str, str, str]]:
    """(file and line, task_id, completion) of each line of a file."""
    try:
        lines = read_text(path).split("\n")
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: cannot be read as JSON lines: {error}") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            value = json.loads(line)
            task_id, completion = value["task_id"], value["completion"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{where}: needed an object with task_id and completion, found {line[:60]!r}") from error
        if not (isinstance(task_id, str) and isinstance(completion, str)):
            raise DataError(f"{where}: task_id and completion must be strings")
        entries.append((where, task_id, completion))
    return entries
