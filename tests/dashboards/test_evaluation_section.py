"""The evaluation on the page: words that are right, marks on one scale, a calibration plot of its bins."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dashboards.report import evaluation_section
from tests.flows.sample_cycle import Workspace, metrics, record_of

SLICES = ("language_python", "source_installed_packages", "bytes_below_2048", "bytes_2048_to_8192")


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 40}


def sliced() -> dict[str, Any]:
    """The sample cycle's metrics with slices and baselines."""
    found = metrics()
    for number, model in enumerate(("base", "sft", "aligned", "unigram", "ngram", "xz")):
        own = found.setdefault(model, {}).setdefault("likelihood", {"bits_per_byte": estimate(1 + number / 2)})
        for name in SLICES:
            own[f"{name}_bits_per_byte"] = estimate(0.8 + number / 2)
        own["calibration_error"] = estimate(0.035)
    return found


def bins(path: Path) -> Path:
    rows = [("aligned", 0.1, 0.2, 100), ("aligned", 0.5, 0.5, 100), ("base", 0.9, 0.1, 100), ("aligned", 0.9, 0.8, 200)]
    schema = ["model", "confidence", "accuracy", "places"]
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(path)
    return path


def test_words_say_by_how_much() -> None:
    """aligned needs 1.548, the champion 1.561, n-grams 3, xz 1.871."""
    assert evaluation_section.words(sliced(), "aligned") == (
        "aligned needs 1.548 bits per byte of held-out text, 0.8% less than the champion, 48.4% less than n-grams, "
        "17.3% less than xz -9. "
        "Its probabilities are off by 3.5% (calibration error)."
    )


def test_slices_share_a_scale_from_zero() -> None:
    first, python, source, short, long = evaluation_section.slices(sliced(), "aligned")
    assert [each.name for each in (first, python, source)] == ["all", "language python", "source installed packages"]
    assert (short.name, long.name) == ("below 2,048 bytes", "2,048 to 8,192 bytes")
    assert [mark.name for mark in python.marks] == ["aligned", "n-grams", "xz -9"]
    places = {mark.at / float(mark.value) for each in (first, python, long) for mark in each.marks}
    assert max(places) == pytest.approx(min(places), rel=1e-3)
    assert max(mark.at for mark in first.marks) == 100


def test_a_calibration_plot_is_that_of_the_model(tmp_path: Path) -> None:
    chart = evaluation_section.calibration(bins(tmp_path / "calibration.parquet"), "aligned")
    assert chart is not None and chart.path == "M10.00,80.00 50.00,50.00 90.00,20.00"
    assert chart.last == "7.5% off on average"
    assert chart.points[-1] == (90, 80, "80.0% right where 90.0% sure, 200 places")
    assert evaluation_section.calibration(tmp_path / "none.parquet", "aligned") is None


def test_what_is_drawn_is_no_row_of_the_table(tmp_path: Path) -> None:
    times = {"aligned": {"streams_16_seconds": estimate(0.25)}}
    found = evaluation_section.evaluation(sliced(), times, tmp_path)
    assert found.models == ["base", "sft", "aligned", "champion"] and found.calibration is None
    names = [(row.suite, row.metric) for row in found.rows]
    assert ("likelihood", "calibration_error") in names and ("likelihood", "language_python_bits_per_byte") not in names
    (row,) = (row for row in found.rows if row.suite == "latency")
    assert row.lower_is_better and [cell and cell.value for cell in row.cells] == [None, None, "0.250", None]


def test_an_older_evaluation_has_words_and_a_table(tmp_path: Path) -> None:
    found = evaluation_section.evaluation(metrics(), {}, tmp_path)
    assert (found.slices, found.calibration) == ([], None)
    assert found.words.endswith("text, 0.8% less than the champion, 17.3% less than xz -9.")


def test_the_champion_is_what_the_release_measured(tmp_path: Path) -> None:
    """Its slices stand beside the final model's."""
    lines = [{"kind": "note", "text": "x"}, {"kind": "metric", "name": "gate/x", "value": 1.0}]
    for name in ("bits_per_byte", *(f"{name}_bits_per_byte" for name in SLICES)):
        lines.append({"kind": "metric", "name": f"champion/likelihood/{name}", "value": 2.0})
    path = tmp_path / "release.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = evaluation_section.champion(path)
    assert found.keys() == {"champion"} and len(found["champion"]["likelihood"]) == 5
    (first, *_) = evaluation_section.slices(sliced() | found, "aligned")
    assert [(mark.name, mark.value) for mark in first.marks][:2] == [("aligned", "1.548"), ("champion", "2.000")]
    assert evaluation_section.champion(tmp_path / "none.jsonl") == {}


def test_the_page_shows_them(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.fill()
    bins(workspace.outputs["evaluate"] / "calibration.parquet")
    text = workspace.render(record_of(workspace, metrics=sliced()))
    assert "source installed packages" in text and "48.4% less than n-grams" in text
    assert text.count('<b class="mark ngram"') == len(SLICES) + 2  # the legend, all documents, and each slice
    assert 'd="M0,100 100,0"' in text and "7.5% off on average" in text
