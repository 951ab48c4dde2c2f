"""`overnight evaluate`, `compare` and `execute`: evaluation of the models and suites that a person names."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from components.core import artifact
from components.evaluation import execute as executing
from components.evaluation.compare import compare_models
from components.evaluation.evaluate import evaluate_model, read_questions, rows_of
from components.evaluation.functional import Suite, built_in_suite, read_suite
from flows.params import read_params

TOKENS = Path("data/tokens")


def evaluate(model_dir: Path, suites: Sequence[Path]) -> list[dict[str, Any]]:
    """Every figure of a model on the held-out documents of data/tokens and on suites (the built-in ones if none)."""
    config = read_params().evaluate
    artifact.read(TOKENS)
    metrics, _ = evaluate_model(model_dir, read_questions(TOKENS, _suites(suites), config), config, _say)
    return [{"suite": suite, "metric": metric, **figure} for _, suite, metric, figure in rows_of(metrics)]


def compare(candidate: Path, champion: Path) -> list[dict[str, Any]]:
    """The paired difference of every figure that two models have on the same questions."""
    config = read_params().evaluate
    artifact.read(TOKENS)
    found = compare_models(candidate, champion, read_questions(TOKENS, _suites(()), config), config, _say)
    return [asdict(each) for each in found]


def execute(suite: str, solutions: str) -> dict[str, Any]:
    """Run a suite's programs in the sandbox with canonical solutions, none, or those of a file."""
    chosen = read_suite(Path(suite)) if Path(suite).exists() else built_in_suite(suite)
    if solutions == "canonical":
        return asdict(executing.execute(chosen, "canonical"))
    if solutions == "none":
        return asdict(executing.execute(chosen, "none"))
    return asdict(executing.execute(chosen, Path(solutions)))


def _suites(paths: Sequence[Path]) -> list[Suite]:
    config = read_params().evaluate
    return [read_suite(path) for path in paths] or [built_in_suite(name) for name in config.functional.suites]


def _say(text: str) -> None:
    """Progress, beside the result that scripts read from standard output."""
    Console(stderr=True, highlight=False).print(text)
