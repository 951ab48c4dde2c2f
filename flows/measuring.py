"""`overnight evaluate`, `compare` and `execute`: evaluation of the models and suites that a person names."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from components.core import artifact
from components.core.artifact import write_file
from components.core.errors import DataError
from components.core.events import Events
from components.evaluation import execute as executing
from components.evaluation.compare import Sides, combine, compare_items, judge, pairs_for
from components.evaluation.contamination import looked_for, overlaps, training_texts
from components.evaluation.evaluate import (
    CONTAMINATION,
    ITEMS,
    VALIDATION,
    evaluate_model,
    read_questions,
    rows_of,
    write,
)
from components.evaluation.functional import built_in_suite, read_suite
from components.evaluation.latency import LATENCY, latency_items, latency_metrics, record
from components.evaluation.measure import Questions, summarise
from components.tokens.text import TextCodec
from flows.comparison import markdown, svg
from flows.params import read_params

TOKENS = Path("data/tokens")
SOURCE = Path("data/clean")
COMPARISON = Path("reports/compare")


def evaluate(model_dir: Path, suites: Sequence[Path], out: Path | None = None) -> list[dict[str, Any]]:
    """Every figure of a model on the held-out documents of data/tokens and on suites (the built-in ones if none).

    `out` keeps it as an artifact that `compare` reads: items.parquet, contamination.parquet, metrics.json, summary.csv;
    times stand in its manifest.
    """
    config = read_params().evaluate
    TextCodec(model_dir)  # a directory without one is told of at once, not after the questions
    ours = (model_dir / artifact.MANIFEST).exists()
    inputs = [artifact.read(TOKENS), *([artifact.read(model_dir)] if ours else [])]
    asked = _asked(suites)
    items, contamination = _measured(model_dir, asked)
    times = latency_items({model_dir.name: model_dir}, asked.documents["text"].to_list(), config.latency)
    latency = latency_metrics(times, config)
    metrics = summarise(items, config, None if contamination is None else contamination.filter("contaminated"))
    if out is not None:
        code = Path(executing.__file__).with_name("evaluate.py")
        with artifact.create(out, stage="evaluate", config=config, inputs=inputs, code=code) as draft:
            draft.rows[ITEMS] = len(items)
            draft.rows["summary.csv"] = write(metrics, items, draft.path)
            if contamination is not None:
                contamination.write_parquet(draft.path / CONTAMINATION, compression="zstd")
            draft.run[LATENCY] = record(latency)
    rows = [*rows_of(metrics), *rows_of(latency)]
    return [{"suite": suite, "metric": metric, **figure} for _, suite, metric, figure in rows]


def compare(
    candidates: Sequence[str], champions: Sequence[str], out: Path = COMPARISON
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The paired difference of every figure of two recipes, each of one training or more, and the gate's verdict.

    A model is a directory to measure now, or a kept evaluation: its directory, with :NAME where it holds several.
    Writes comparison.json, comparison.md and comparison.svg into `out`, and events for MLflow.
    """
    criteria = read_params().release.criteria
    found = [[_read_or_measured(each) for each in side] for side in (candidates, champions)]
    contaminated = contaminated_in([marked for side in found for _, marked in side])
    candidate_items, champion_items = ([items for items, _ in side] for side in found)
    sides = Sides(candidates=candidate_items, champions=champion_items, contaminated=contaminated)
    rows = [asdict(each) for each in compare_items(sides, criteria)]
    verdict = asdict(combine(judge(criteria, pairs_for(criteria, sides))))
    told = {"candidates": list(candidates), "champions": list(champions), "verdict": verdict, "rows": rows}
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / "comparison.json", (json.dumps(told, indent=1, allow_nan=False) + "\n").encode())
    write_file(out / "comparison.md", markdown(told).encode())
    write_file(out / "comparison.svg", svg(rows).encode())
    _record(told, out)
    return rows, verdict


def contaminated_in(marked: Sequence[pl.DataFrame | None]) -> pl.DataFrame | None:
    """suite and item of what any evaluation found contaminated; None where none of them looked."""
    known = [each for each in marked if each is not None]
    return pl.concat(known).filter("contaminated").select("suite", "item").unique() if known else None


def _record(told: dict[str, Any], out: Path) -> None:
    """Differences as metrics, the verdict as a tag, the files as artifacts: the next forwarder sends them to MLflow."""
    events = Events("compare")
    events.write("started")
    events.tag("verdict", told["verdict"]["outcome"])
    events.tag("candidates", ", ".join(told["candidates"]))
    events.tag("champions", ", ".join(told["champions"]))
    events.metrics({f"difference/{each['suite']}/{each['metric']}": each["difference"] for each in told["rows"]})
    for path in sorted(out.glob("comparison.*")):
        events.artifact(path.absolute())


def _read_or_measured(name: str) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Items of one model and their contamination, None where that is not known."""
    directory, model = _named(name)
    return read_evaluation(name) if model or (directory / ITEMS).exists() else _measured(directory, _asked(()))


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
    found = path / CONTAMINATION
    chosen = items.filter(pl.col("model") == (model or models[0]))
    return chosen, pl.read_parquet(found) if found.exists() else None


def _measured(model_dir: Path, asked: Questions) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Items of a model, measured now, and their contamination by data/clean where that is there."""
    config = read_params().evaluate
    _, items = evaluate_model(model_dir, asked, config, _say)
    if not SOURCE.is_dir():
        _say(f"{SOURCE} is not there: contamination is not known")
        return items, None
    held_out = pl.read_parquet(TOKENS / VALIDATION, columns=["id", "text"])
    found = looked_for(held_out, asked.suites, training_texts(SOURCE, held_out["id"]), config.contamination)
    return items, overlaps(items, found, asked.suites, config.contamination)


def execute(suite: str, solutions: str) -> dict[str, Any]:
    """Run a suite's programs in the sandbox with canonical solutions, none, or those of a file."""
    chosen = read_suite(Path(suite)) if Path(suite).exists() else built_in_suite(suite)
    if solutions == "canonical":
        return asdict(executing.execute(chosen, "canonical"))
    if solutions == "none":
        return asdict(executing.execute(chosen, "none"))
    return asdict(executing.execute(chosen, Path(solutions)))


def _asked(paths: Sequence[Path]) -> Questions:
    """What data/tokens and some suites ask of every model; the built-in suites if none."""
    config = read_params().evaluate
    artifact.read(TOKENS)
    suites = [read_suite(path) for path in paths] or [built_in_suite(name) for name in config.functional.suites]
    return read_questions(TOKENS, suites, config)


def _say(text: str) -> None:
    """Progress, beside the result that scripts read from standard output."""
    Console(stderr=True, highlight=False).print(text)
