"""`overnight evaluate`, `compare` and `execute`: evaluation of the models and suites that a person names."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from components.core import artifact
from components.core.artifact import write_file
from components.core.errors import DataError
from components.core.events import Events
from components.core.graph.stages import read_stages, writer
from components.evaluation.comparison.compare import Sides, combine, compare_items, judge, pairs_for
from components.evaluation.comparison.pairs import metrics_of
from components.evaluation.evaluate import (
    CONTAMINATION,
    ITEMS,
    VALIDATION,
    evaluate_model,
    evaluation,
    read_questions,
    rows_of,
)
from components.evaluation.measures import execute as executing
from components.evaluation.measures.contamination import looked_for, overlaps, training_texts
from components.evaluation.measures.functional import built_in_suite, read_suite
from components.evaluation.measures.latency import LATENCY, latency_items, latency_metrics, record
from components.evaluation.measures.model_measures import Questions, summarise
from components.execution.sandbox import warning
from components.tokens.encoding.codec import TextCodec
from dashboards.report.comparison_table import markdown, svg
from flows.running.params import read_params

COMPARISON = Path("reports/compare")


def evaluate(model_dir: Path, suites: Sequence[Path], out: Path | None = None) -> list[dict[str, Any]]:
    """Every figure of a model on the held-out documents of this workspace and on suites (the built-in ones if none).

    `out` keeps it as an artifact that `compare` reads: items.parquet, contamination.parquet, figures.json, summary.csv;
    times stand in its manifest. Figures are events for MLflow, too.
    """
    config = read_params().evaluate
    TextCodec(model_dir)  # a directory without one is told of at once, not after the questions
    ours = (model_dir / artifact.MANIFEST).exists()
    inputs = [artifact.read(_tokens()), *([artifact.read(model_dir)] if ours else [])]
    questions = _questions(suites)
    items, contamination = _measured(model_dir, questions)
    times = latency_items({model_dir.name: model_dir}, questions.documents["text"].to_list(), config.latency)
    latency = latency_metrics(times, config)
    metrics = summarise(items, config, None if contamination is None else contamination.filter("contaminated"))
    if out is not None:
        tables = {} if contamination is None else {CONTAMINATION: contamination}
        with evaluation(out, config, inputs, metrics, items, tables) as draft:
            draft.run[LATENCY] = record(latency)
    rows = [*rows_of(metrics), *rows_of(latency)]
    _sent(
        "evaluate_model", {f"{suite}/{metric}": each["value"] for _, suite, metric, each in rows}, model=str(model_dir)
    )
    return [{"suite": suite, "metric": metric, **figure} for _, suite, metric, figure in rows]


def compare(
    candidates: Sequence[str], champions: Sequence[str], out: Path = COMPARISON
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The paired difference of every figure of two recipes, each of one training or more, and the gate's verdict.

    A model is a directory to measure now, or a kept evaluation: its directory, with :NAME where it holds several.
    Writes comparison.json, comparison.md and comparison.svg into `out`, and events for MLflow.
    """
    criteria = read_params().release.criteria
    evaluations = [[_read_or_measured(each) for each in side] for side in (candidates, champions)]
    contaminated = contaminated_in([marked for side in evaluations for _, marked in side])
    (candidate_items, champion_items), left_out = in_common([[items for items, _ in side] for side in evaluations])
    if left_out:
        _say(f"not measured on every model, left out: {', '.join(left_out)}")
    sides = Sides(candidates=candidate_items, champions=champion_items, contaminated=contaminated)
    rows = [asdict(each) for each in compare_items(sides, criteria)]
    verdict = asdict(combine(judge(criteria, pairs_for(criteria, sides))))
    comparison = {"candidates": list(candidates), "champions": list(champions), "verdict": verdict, "rows": rows}
    comparison |= {"left_out": left_out}
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / "comparison.json", (json.dumps(comparison, indent=1, allow_nan=False) + "\n").encode())
    write_file(out / "comparison.md", markdown(comparison).encode())
    write_file(out / "comparison.svg", svg(rows).encode())
    _record(comparison, out)
    return rows, verdict


def in_common(sides: Sequence[Sequence[pl.DataFrame]]) -> tuple[list[list[pl.DataFrame]], list[str]]:
    """The items of each model in the metrics that all were measured in, and the other metrics' names.

    A model that is not ours has no tokens for infilling, and no training text of ours to repeat. Where nothing is in
    common all is kept: comparing says what is missing.
    """
    measured = [{*metrics_of(items)} for side in sides for items in side]
    shared = set.intersection(*measured)
    names = sorted("/".join(each) for each in set.union(*measured) - shared)
    if not shared or not names:
        return [list(side) for side in sides], []
    wanted = pl.DataFrame(sorted(shared), schema={"suite": pl.String, "metric": pl.String}, orient="row")
    on = ["suite", "metric"]
    return [[each.join(wanted, on=on, how="semi", maintain_order="left") for each in side] for side in sides], names


def contaminated_in(marked: Sequence[pl.DataFrame | None]) -> pl.DataFrame | None:
    """suite and item of what any evaluation found contaminated; None where none of them looked."""
    known = [each for each in marked if each is not None]
    return pl.concat(known).filter("contaminated").select("suite", "item").unique() if known else None


def _record(comparison: dict[str, Any], out: Path) -> None:
    """Differences as metrics, the verdict as a tag, the files as artifacts: the next forwarder sends them to MLflow."""
    sides = {side: ", ".join(comparison[side]) for side in ("candidates", "champions")}
    differences = {f"difference/{each['suite']}/{each['metric']}": each["difference"] for each in comparison["rows"]}
    events = _sent("compare", differences, verdict=comparison["verdict"]["outcome"], **sides)
    for path in sorted(out.glob("comparison.*")):
        events.artifact(path.absolute())


def _sent(stage: str, figures: Mapping[str, float], **tags: str) -> Events:
    """Figures and tags as events. Names come from files, and MLflow takes no name with other characters than these."""
    events = Events(stage)
    events.write("started")
    for name, value in tags.items():
        events.tag(name, value)
    events.metrics({re.sub(r"[^\w .:/-]", "_", name): value for name, value in figures.items()})
    return events


def _read_or_measured(name: str) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Items of one model and their contamination, None where that is not known."""
    directory, model = _named(name)
    if model or (directory / ITEMS).exists():
        return read_evaluation(name)
    if (directory / artifact.MANIFEST).exists():
        artifact.read(directory)
    return _measured(directory, _questions(()))


def _named(name: str) -> tuple[Path, str]:
    """Directory and model of DIR or DIR:MODEL."""
    directory, _, model = name.rpartition(":") if not Path(name).exists() and ":" in name else (name, "", "")
    return Path(directory), model


def read_evaluation(name: str) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Items and contamination of one model of a kept evaluation, DIR or DIR:MODEL.

    Raises DataError for a directory without an evaluation, with several models or without the one that was named.
    """
    path, model = _named(name)
    if not (path / ITEMS).exists():
        raise DataError(f"{path}: no evaluation, {ITEMS} is not in it; keep one with `overnight evaluate --out`")
    artifact.read(path)
    items = pl.read_parquet(path / ITEMS)
    models = items["model"].unique(maintain_order=True).to_list()
    if model not in models and (model or len(models) != 1):
        raise DataError(
            f"{path}: holds {', '.join(models) or 'no items'}, found {model or 'no name'}; name one: {path}:MODEL"
        )
    contamination = path / CONTAMINATION
    chosen = items.filter(pl.col("model") == (model or models[0]))
    return chosen, pl.read_parquet(contamination) if contamination.exists() else None


def _measured(model_dir: Path, questions: Questions) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Items of a model, measured now, and their contamination by data/clean where that is there."""
    config = read_params().evaluate
    _, items = evaluate_model(model_dir, questions, config, _say)
    source = writer(read_stages(), "clean_documents").output
    if not source.is_dir():
        _say(f"{source} is not there: contamination is not known")
        return items, None
    artifact.read(source)
    held_out = pl.read_parquet(_tokens() / VALIDATION, columns=["id", "text"])
    passages = looked_for(held_out, questions.suites, training_texts(source, held_out["id"]), config.contamination)
    return items, overlaps(items, passages, questions.suites, config.contamination)


def execute(suite: str, solutions: str) -> dict[str, Any]:
    """Run a suite's programs in the sandbox with canonical solutions, none, or those of a file."""
    chosen = read_suite(Path(suite)) if Path(suite).exists() else built_in_suite(suite)
    if words := warning():
        _say(words)
    if solutions == "canonical":
        outcome = executing.execute(chosen, "canonical")
    elif solutions == "none":
        outcome = executing.execute(chosen, "none")
    else:
        outcome = executing.execute(chosen, Path(solutions))
    figures = {f"{chosen.name}/{name}": float(getattr(outcome, name)) for name in ("passed", "total", "seconds")}
    _sent("execute", figures, suite=suite, solutions=solutions)
    return asdict(outcome)


def _questions(paths: Sequence[Path]) -> Questions:
    """What held-out documents and some suites ask of every model; the built-in suites if none."""
    config = read_params().evaluate
    artifact.read(_tokens())
    suites = [read_suite(path) for path in paths] or [built_in_suite(name) for name in config.functional.suites]
    return read_questions(_tokens(), suites, config)


def _tokens() -> Path:
    return writer(read_stages(), "tokens").output


def _say(text: str) -> None:
    """Progress, beside the result that scripts read from standard output."""
    Console(stderr=True, highlight=False).print(text)
