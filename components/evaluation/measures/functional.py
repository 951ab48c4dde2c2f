"""Programs that a model completes, run in the sandbox, and the unbiased pass@k.

A suite is a JSONL file, gzipped where its name ends in .gz, in one of the formats of data/suite_formats.py; whatever
the format, each line becomes a Task.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.artifact import sha256_of
from components.core.errors import DataError
from components.data.cleaning.suite_formats import Line, format_of, json_lines, mistake, never_checks, refuse_unread
from components.evaluation.config import FunctionalConfig
from components.evaluation.measures.completion import room, within
from components.evaluation.measures.places import indented
from components.execution.languages import missing
from components.execution.sandbox import Outcome, Program, run_programs, unmet
from components.inference.engine import Engine, Sampling
from components.inference.infilling_prompts import completion_prompt, completion_stop_ids
from components.tokens.encoding.codec import TextCodec

SUITES = Path(__file__).with_name("suites")


class Task(BaseModel):
    """One program to complete: prompt, completion and test, one after the other, are the program.

    A completion ends before the first of `stops`, or with `end`, which belongs to it; with neither, where its block
    does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    task_id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    test: str
    canonical_solution: str | None = None
    language: str = "python"
    stops: tuple[str, ...] = ()
    end: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Tasks under a name; `digest` is of the file that they came from."""

    name: str
    tasks: tuple[Task, ...]
    digest: str


def built_in_suite(name: str) -> Suite:
    """A suite that comes with us. Raises DataError with the allowed names for another one."""
    allowed = sorted(path.stem for path in SUITES.glob("*.jsonl"))
    if name not in allowed:
        raise DataError(f"suite {name!r} is no file and does not come with us; allowed: {', '.join(allowed)}")
    return read_suite(SUITES / f"{name}.jsonl")


def read_suite(path: Path) -> Suite:
    """The tasks of a file. Raises DataError that names file, line and field of the first mistake."""
    parsed = json_lines(path)
    if not parsed:
        raise DataError(f"{path}: no task in it; needed one JSON object a line, as in {SUITES.name}/")
    kind = format_of(parsed[0][0])
    tasks: dict[str, Task] = {}
    for value, where in parsed:
        task = _task(value, kind, where)
        if task.task_id in tasks:
            raise DataError(f"{where}: task_id {task.task_id!r} is there twice; each task needs its own")
        tasks[task.task_id] = task
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    return Suite(name=name, tasks=tuple(tasks.values()), digest=sha256_of(path))


def _task(value: Any, kind: type[Line], where: str) -> Task:
    """One line as a task."""
    refuse_unread(value, kind, where)
    try:
        task = Task.model_validate(kind.model_validate(value).task())
    except ValidationError as error:
        raise mistake(error, where) from error
    if task.language == "python" and never_checks(task.test):
        raise DataError(f"{where}: its test defines check and never calls it, so that every program would pass")
    return task


def program(task: Task, completion: str) -> Program:
    """The program that passes when the completion is right."""
    return Program(source=f"{task.prompt}{completion}\n", test=task.test, language=task.language)


def extract(task: Task, text: str) -> str:
    """What of a model's text is the completion: all before the first stop, or up to the end of the function."""
    if task.end:
        start = text.find(task.end)
        return text if start < 0 else text[: start + len(task.end)] + "\n"
    if task.stops:
        return text[: min((at for stop in task.stops if (at := text.find(stop)) >= 0), default=len(text))]
    return indented(text)


def run_solutions(solutions: Sequence[tuple[Task, str]], *, timeout_seconds: float, memory_bytes: int) -> list[Outcome]:
    """Run each completion of a task in the sandbox; equal programs run once. Outcomes in the order of the solutions.

    A task whose own prompt or test needs what is not here is not run: that is no verdict on its solution.
    """
    programs = [program(task, completion) for task, completion in solutions]
    reasons = unmet_by([task for task, _ in solutions])
    distinct = list(
        dict.fromkeys(each for each, (task, _) in zip(programs, solutions, strict=True) if task.task_id not in reasons)
    )
    outcomes = run_programs(distinct, timeout_seconds=timeout_seconds, memory_bytes=memory_bytes)
    by_program = dict(zip(distinct, outcomes, strict=True))
    return [
        _not_run(reasons[task.task_id]) if task.task_id in reasons else by_program[each]
        for each, (task, _) in zip(programs, solutions, strict=True)
    ]


def _not_run(reason: str) -> Outcome:
    return Outcome(passed=False, cause="not_run", detail=reason, output="", seconds=0.0)


def unmet_by(tasks: Sequence[Task]) -> dict[str, str]:
    """task_id -> what the task's own prompt and test need and is not here, for the tasks that cannot be judged here."""
    lacking = {
        name
        for name in {task.language for task in tasks}
        if unmet(name, [text for task in tasks if task.language == name for text in (task.prompt, task.test)])
    }
    named = {task.task_id: unmet(task.language, (task.prompt, task.test)) for task in tasks if task.language in lacking}
    return {task_id: reason for task_id, reason in named.items() if reason}


def num_passed(
    engine: Engine, codec: TextCodec, suite: Suite, config: FunctionalConfig, temperature: float, seed: int
) -> list[int]:
    """How many of `num_samples` completions pass, for each task; of the text, `extract` is the completion.

    Raises DataError for a suite whose language has no toolchain here: that is no verdict on a model.
    """
    for task in suite.tasks:
        if reason := missing(task.language):
            raise DataError(f"suite {suite.name}: {reason}")
    for task_id, reason in unmet_by(suite.tasks).items():
        raise DataError(f"suite {suite.name}: {task_id}: {reason}")
    sampling = Sampling(
        max_new_tokens=within(engine, config.max_new_tokens),
        temperature=temperature,
        top_p=config.top_p,
        num_samples=config.num_samples,
        seed=seed,
    )
    prompts = [completion_prompt(codec, task.prompt, room(engine, config.max_new_tokens)) for task in suite.tasks]
    completions = engine.generate(prompts, sampling, stop_ids=completion_stop_ids(codec))
    solutions = [
        (task, extract(task, codec.decode(sample.tokens)))
        for task, samples in zip(suite.tasks, completions, strict=True)
        for sample in samples
    ]
    outcomes = run_solutions(solutions, timeout_seconds=config.timeout_seconds, memory_bytes=config.memory_bytes)
    passed = [outcome.passed for outcome in outcomes]
    return [sum(passed[first : first + config.num_samples]) for first in range(0, len(passed), config.num_samples)]


def pass_at_k(num_samples: int, passed: int, k: int) -> float:
    """Probability that one of k samples passes, unbiased: 1 - C(n - c, k) / C(n, k) (Chen 2021, arXiv:2107.03374).

    Raises ValueError unless 0 <= passed <= num_samples and 1 <= k <= num_samples.
    """
    if not (0 <= passed <= num_samples and 1 <= k <= num_samples):
        raise ValueError(f"pass@{k} of {passed} passed among {num_samples} samples is not defined")
    missed = 1.0
    for index in range(num_samples - passed + 1, num_samples + 1):
        missed *= max(0.0, 1 - k / index)
    return 1 - missed
