"""The evaluation on a cycle's page: in words, bits per byte by slice beside what counting and packing need,
calibration, and every other metric as a table.

Covers: evaluations without slices, baselines, times or bins, as older ones are.  Not covered: intervals of slices.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from components.core.events import read_events
from dashboards.report.chart import Chart, Tick
from dashboards.report.page_tables import (
    BITS_PER_BYTE,
    Row,
    bits_per_byte,
    evaluation_rows,
    final_model,
    models_of,
    xz_bits_per_byte,
)

CALIBRATION = "calibration.parquet"
SLICE = re.compile(rf"(language|source|bytes)_(.+)_{BITS_PER_BYTE}")
BASELINES = {"ngram": "n-grams", "xz": "xz -9"}
NO_COLUMN = ("unigram", *BASELINES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One model's or baseline's bits per byte, `at` percent of the scale that all rows share."""

    name: str
    kind: str
    value: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Some of the held-out documents: bits per byte of the model and of what it is held against."""

    name: str
    documents: int
    marks: list[Mark]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What the page shows; `slices` and `calibration` are absent where the evaluation has none."""

    words: str
    slices: list[Slice]
    calibration: Chart | None
    models: list[str]
    rows: list[Row]


def evaluation(metrics: Mapping[str, Any], times: Mapping[str, Any], directory: Path) -> Evaluation:
    """The parts of the section, of an evaluation's metrics, its times by model, and where its files are."""
    models = {name: suites for name, suites in metrics.items() if name not in NO_COLUMN}
    shown = {
        name: _without_slices(suites) | ({"latency": times[name]} if name in times else {})
        for name, suites in models.items()
    }
    final = final_model(metrics)
    return Evaluation(
        words=words(metrics, final) if final else "",
        slices=slices(metrics, final) if final else [],
        calibration=calibration(directory / CALIBRATION, final) if final else None,
        models=models_of(shown),
        rows=evaluation_rows(shown),
    )


def champion(events: Path) -> dict[str, Any]:
    """Figures of the champion, as metrics of a model, that a release put into its events; empty without any."""
    suites: dict[str, dict[str, Any]] = {}
    for event in read_events(events)[0]:
        if event["kind"] == "metric" and event["name"].startswith("champion/"):
            _, suite, metric = event["name"].split("/", 2)
            suites.setdefault(suite, {})[metric] = {"value": event["value"]}
    return {"champion": suites} if suites else {}


def words(metrics: Mapping[str, Any], final: str) -> str:
    """What the final model needs beside the champion, n-grams and xz, and whether its probabilities can be believed."""
    own = bits_per_byte(metrics, final)
    assert own is not None
    against = {
        "the champion": bits_per_byte(metrics, "champion"),
        "n-grams": bits_per_byte(metrics, "ngram"),
        "xz -9": xz_bits_per_byte(metrics),
    }
    compared = [
        f"{abs(1 - own / other):.1%} {'less' if own < other else 'more'} than {name}"
        for name, other in against.items()
        if other
    ]
    text = f"{final} needs {', '.join([f'{own:.3f} bits per byte of held-out text', *compared])}."
    error = metrics[final].get("likelihood", {}).get("calibration_error")
    return text if error is None else f"{text} Its probabilities are off by {error['value']:.1%} (calibration error)."


def slices(metrics: Mapping[str, Any], final: str) -> list[Slice]:
    """All documents, then languages, sources and lengths, of the final model, the champion, n-grams and xz."""
    names = [name for name in metrics[final]["likelihood"] if name == BITS_PER_BYTE or SLICE.fullmatch(name)]
    if len(names) < 2:
        return []
    beside = {name: metrics.get(name, {}).get("likelihood", {}) for name in (final, "champion", *BASELINES)}
    columns = {name: each for name, each in beside.items() if each.keys() >= set(names)}
    top = max(each[name]["value"] for each in columns.values() for name in names)
    return [
        Slice(
            name=_label(name),
            documents=columns[final][name]["n"],
            marks=[
                Mark(
                    name=BASELINES.get(column, column),
                    kind="model" if column == final else column,
                    value=f"{each[name]['value']:.3f}",
                    at=100 * each[name]["value"] / top,
                )
                for column, each in columns.items()
            ],
        )
        for name in names
    ]


def _label(name: str) -> str:
    """bytes_2048_to_8192_bits_per_byte -> 2,048 to 8,192 bytes."""
    match = SLICE.fullmatch(name)
    if match is None:
        return "all"
    kind, value = match.groups()
    if kind != "bytes":
        return f"{kind} {value.replace('_', ' ')}"
    return re.sub(r"\d+", lambda digits: f"{int(digits[0]):,}", value).replace("_", " ") + " bytes"


def calibration(path: Path, model: str) -> Chart | None:
    """How often the most probable token is right, by its probability; None where no bins of the model are kept."""
    if not path.is_file():
        return None
    bins = pl.read_parquet(path).filter(model=model).select("confidence", "accuracy", "places").rows()
    if not bins:
        return None
    gap = sum(abs(sure - right) * places for sure, right, places in bins) / sum(places for *_, places in bins)
    axis = [Tick(at=at, label=f"{at}%") for at in (0, 25, 50, 75, 100)]
    return Chart(
        title=f"Calibration of {model}",
        note="share right over probability of the most probable token; dashed where both are equal",
        path="M" + " ".join(f"{100 * sure:.2f},{100 - 100 * right:.2f}" for sure, right, _ in bins),
        points=[
            (100 * sure, 100 * right, f"{right:.1%} right where {sure:.1%} sure, {places:,} places")
            for sure, right, places in bins
        ],
        x_ticks=axis,
        y_ticks=axis,
        reference=None,
        last=f"{gap:.1%} off on average",
        ideal="M0,100 100,0",
    )


def _without_slices(suites: Mapping[str, Any]) -> dict[str, Any]:
    return {
        suite: {name: each for name, each in metrics.items() if not SLICE.fullmatch(name)}
        for suite, metrics in suites.items()
    }
