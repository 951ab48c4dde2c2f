"""The page of the corpus: what it draws is what the profile counts; it fits, and strangers' words stay words."""

import json
import sysconfig
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.core import artifact
from components.core.config import StepConfig
from components.data.contracts.measures import document_statistics
from components.data.contracts.profile import PROFILE, profile, summary
from components.data.documents.document import SCHEMA
from dashboards.report.chart import size
from dashboards.report.profile_page import cluster_sizes, grouped, histogram, reasons, render, values
from tests.dashboards.chromium import OVERLAPS, Chromium
from tests.data.conftest import document
from tests.flows.sample_cycle import Workspace, record_of

HOSTILE = "</code><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


class NoConfig(StepConfig):
    """No parameters."""


def corpus(prefix: str = "") -> dict[str, Any]:
    """A profile of a hundred files of the standard library in many languages and under many licences."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:100]
    rows = [
        document(
            file.read_text(encoding="utf-8"),
            f"{prefix}{file.name}",
            language=f"language-{number % 17}",
            licence="Apache-2.0 AND MIT AND BSD-3-Clause" if number % 9 else "MIT",
            package=f"package_with_quite_a_long_name_{number % 40}",
        )
        for number, file in enumerate(files)
    ]
    frame = pl.DataFrame(rows, schema=SCHEMA)
    kept = frame[20:].with_columns(cluster="id", redactions=pl.int_range(80) % 3)
    near = pl.DataFrame({"id": frame["id"][:12], "path": frame["path"][:12], "detail": [kept["id"][0]] * 12})
    other = frame[12:20].select("id", "path", detail=pl.lit(f"{prefix} at line 3"))
    drops = pl.concat([near.with_columns(reason=pl.lit("near_duplicate")), other.with_columns(reason=pl.lit("syntax"))])
    return profile(
        summary(document_statistics(frame, ("MIT",))),
        summary(document_statistics(kept, ("MIT",))),
        left=pl.DataFrame({"path": [f"{prefix}{'deep/' * 30}a.bin"], "reason": ["not_utf8"], "detail": ["byte 7"]}),
        quarantine=pl.DataFrame({"path": ["q.py"], "rule": ["nul_characters"], "value": ["3"], "bytes": [100]}),
        drops=drops,
        redactions=pl.DataFrame({"id": kept["id"][:9], "kind": ["email"] * 7 + ["key", "ip"]}),
        checked=frame.select("id", "bytes"),
        kept=kept.select("id", "path", "cluster"),
    )


def written(found: dict[str, Any], folder: Path) -> Path:
    (folder / PROFILE).write_text(json.dumps(found))
    return render(folder, folder / "profile.html", "20260921-141320-1f3a")


def test_what_is_drawn_is_what_was_counted() -> None:
    found = corpus()
    for column, fine in found["before"]["histograms"].items():
        drawn = grouped(fine)
        assert sum(drawn.values()) == 100 - fine["missing"]
        chart = histogram(column, {side: found[side]["histograms"][column] for side in ("before", "after")})
        assert chart is not None and len(chart.sides["before"]) == sum(1 for count in drawn.values() if count)
        tallest = max(chart.sides["before"], key=lambda bar: bar.height)
        assert tallest.label.endswith(f": {max(drawn.values())} documents")
        assert all(bar.left >= 0 and bar.left + bar.width <= 100 for bar in chart.sides["before"])
        assert all(-1e-6 <= tick.at <= 100 + 1e-6 for tick in chart.x_ticks)
    languages = values("language", found)
    assert languages is not None and (len(languages.rows), languages.more) == (12, 5)
    assert max(row.before for row in languages.rows) == 100
    assert [(each.outcome, each.reason, each.documents) for each in reasons(found)] == [
        ("left", "not utf8", 1),
        ("quarantined", "nul characters", 1),
        ("dropped", "near duplicate", 12),
        ("dropped", "syntax", 8),
    ]


def test_a_value_stands_in_the_bar_of_its_range() -> None:
    """Bars by their labels, against the values themselves."""
    numbers = [0, 1, 1, 2, 3, 5, 8, 1000, 1023, 1024, 1025]
    fine = summary(
        pl.DataFrame({"lines": numbers, "text_bytes": numbers}).with_columns(
            *(pl.lit("x").alias(name) for name in ("id", "path", "package"))
        )
    )["histograms"]["lines"]
    chart = histogram("lines", {"after": fine})
    assert chart is not None
    counted = {bar.label.split(":")[0]: int(bar.label.split()[-2]) for bar in chart.sides["after"]}
    assert counted == {
        "0 to 1": 1,
        "1 to 1.41": 2,
        "2 to 2.83": 1,
        "2.83 to 4": 1,
        "4 to 5.66": 1,
        "8 to 11.3": 1,
        "724 to 1,024": 2,
        "1,024 to 1,448": 2,
    }


def test_clusters_come_in_ranges_that_double() -> None:
    found = cluster_sizes([[2, 5], [3, 2], [4, 1], [5, 1], [9, 1]])
    assert [(each.label, each.clusters) for each in found] == [("2", 5), ("3 to 4", 3), ("5 to 8", 1), ("9 to 16", 1)]


def test_an_empty_corpus_has_a_page(tmp_path: Path) -> None:
    nothing = pl.DataFrame(schema=SCHEMA)
    side = summary(document_statistics(nothing, ("MIT",)))
    text = dict.fromkeys(("id", "path", "reason", "detail", "kind", "cluster", "rule", "value"), pl.String)
    frames = {name: pl.DataFrame(schema=text | {"bytes": pl.Int64}) for name in ("quarantine", "drops", "redactions")}
    ids = {"checked": pl.DataFrame(schema={"id": pl.String, "bytes": pl.Int64}), "kept": pl.DataFrame(schema=text)}
    frames["drops"] = frames["drops"].drop("bytes")
    page = written(profile(side, side, left=pl.DataFrame(schema=text), **frames, **ids), tmp_path)
    assert "0 of 0 documents stay" in page.read_text()


def test_strangers_words_stay_words(tmp_path: Path) -> None:
    page = written(corpus(HOSTILE), tmp_path).read_text()
    assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_page_fits(chromium: Chromium, tmp_path: Path, width: int, scheme: str) -> None:
    found = corpus()
    chromium.open(written(found, tmp_path), width, scheme)
    chromium.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert chromium.value("document.documentElement.scrollWidth") <= width
    assert chromium.value(OVERLAPS) == []
    assert chromium.complaints == []
    told = chromium.value("document.querySelector('h1').textContent")
    assert told == (f"80 of 100 documents stay, {size(found['after']['bytes'])} of {size(found['before']['bytes'])}.")


def test_the_cycle_s_page_links_to_it_and_to_no_older_one(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.fill()
    stale = tmp_path / "reports" / "profile.html"
    stale.write_text("of an older cycle")
    assert "profile.html" not in workspace.render(record_of(workspace)) and not stale.exists()
    out = workspace.outputs["check_clean"]
    with artifact.create(out, stage="check_clean", config=NoConfig(), inputs=[], code=Path(__file__)) as draft:
        (draft.path / PROFILE).write_text(json.dumps(corpus()))
    assert draft.manifest is not None
    workspace.manifests["check_clean"] = draft.manifest
    assert 'href="profile.html"' in workspace.render(record_of(workspace))
    assert "80 of 100 documents stay" in stale.read_text()
