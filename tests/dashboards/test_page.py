"""The report's page: whole, of cycles that failed, against hostile text, and as a real browser shows it."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dashboards.report.cycle_record import ReleaseRecord, ServingRecord
from dashboards.report.page_tables import removals
from tests.dashboards.chromium import OVERLAPS, Chromium
from tests.flows.sample_cycle import BEGUN, Workspace, history, record_of, stage_records

HOSTILE = "</pre><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The artifacts of a whole cycle."""
    whole = Workspace(tmp_path_factory.mktemp("cycle"))
    whole.fill()
    events = whole.root / ".overnight" / "events" / "20260921-141320-1f3a" / "pretrain.jsonl"
    events.parent.mkdir(parents=True)
    events.write_text(json.dumps({"time": BEGUN, "kind": "note", "text": "no g++: trained without compilation"}) + "\n")
    return whole


class Sections(HTMLParser):
    """The text below each h2, and every tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self._heading = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("h1", "h2", "style", "script"):
            self._open.append(tag)
            self._heading = "" if tag == "h2" else self._heading

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "h2":
            self._heading += data
        elif inside not in ("style", "script"):
            name = "h1" if inside == "h1" else self._heading
            self.texts[name] = " ".join(f"{self.texts.get(name, '')} {data}".split())


def test_a_whole_cycle_says_everything(workspace: Workspace) -> None:
    page = Sections(workspace.render(record_of(workspace))).texts
    assert page["h1"] == "Promoted: version 3 serves, 9 min 13 s after the start and 2 min 47 s before the deadline."
    assert 'return [line.rstrip("\\n") for line in file]' in page["The served answer"]
    assert "1.548 xz -9 needs 1.871: 17.3% less" in page["Key numbers"]
    assert "Pretraining 21,308 tokens/s 0.04% of it waiting for data" in page["Key numbers"]
    assert "xz -9: 2.104" in page["Training"]
    assert "pretrain 3 min 51 s 3 min 9 s 3 min 35 s" in page["Timeline"]
    assert "check_raw cached" in page["Timeline"]
    assert "1.535 at 4.92 M tokens" in page["Training"]
    assert "aligned" not in page["Corpus"] and "near duplicate clean 3" in page["Corpus"]
    assert "0.620 n 200 0.560 to 0.680" in page["Evaluation"]
    assert "endpoint:judge left out 101 preferred, 4 tie, 33 inconsistent 0.12 -0.03 to 0.27, n 96" in page["Judges"]
    assert "n 131; verifier 0.51" in page["Judges"]
    assert workspace.manifests["align"].digest[:12] in page["Release"]
    assert "pretrain no g++: trained without compilation" in page["Notes"]
    assert "overnight cycle --profile smoke --hours 0.2" in page["How to reproduce it"]
    assert not [text for text in page.values() if "did not run" in text or "cannot be read" in text]


def test_corrections_of_the_plan_and_the_replay_are_told(workspace: Workspace) -> None:
    stages = [
        each.model_copy(update={"given_seconds": {"pretrain": 200.0, "sft": each.planned_seconds}.get(each.name)})
        for each in stage_records(workspace.manifests)
    ]
    found = record_of(workspace, stages=stages, decided={"pretrain": {"steps": 10}}, deadline_left_seconds=166.6)
    page = Sections(workspace.render(found)).texts
    told = "The plan was corrected as stages ended: pretrain 3 min 20 s instead of 3 min 35 s."
    assert page["Timeline"].endswith(told)
    assert f"overnight cycle --replay {found.cycle_id}" in page["How to reproduce it"]
    assert "instead of" not in Sections(workspace.render(record_of(workspace))).texts["Timeline"]


def test_documents_and_bytes_add_up(workspace: Workspace) -> None:
    raw = workspace.manifests["ingest"].statistics
    removed, kept = removals(*(workspace.outputs[stage] for stage in ("ingest", "check_raw", "clean")))
    assert kept is not None
    rows = [*removed, kept]
    assert sum(each.documents for each in rows) == raw["documents"]
    assert sum(each.bytes for each in rows) == raw["bytes"]
    assert sum(each.share for each in rows) == pytest.approx(100)


def test_a_failed_cycle_shows_its_error_and_no_leftovers(workspace: Workspace) -> None:
    failed = record_of(
        workspace,
        stages=stage_records(workspace.manifests, "clean"),
        metrics={},
        model=None,
        serving=None,
        release=ReleaseRecord(decision="not_asked", reasons=(), version=None, environment_commit=None),
        seconds=58.3,
        error="clean: no space left on device (log: clean.log)",
    )
    page = Sections(workspace.render(failed)).texts
    assert page["h1"] == "Failed in clean, 58 s after the start and 11 min 2 s before the deadline."
    assert "no space left on device" in page[""]
    assert page["Training"] == "The stage pretrain did not run in this cycle."
    assert page["Evaluation"] == "The stage evaluate did not run in this cycle."
    assert "The stage clean failed." in page["Corpus"] and "near duplicate" not in page["Corpus"]
    assert "The served answer" not in page


def test_before_the_evaluation_pretraining_speaks(workspace: Workspace) -> None:
    stopped = record_of(workspace, stages=stage_records(workspace.manifests, "sft"), metrics={}, serving=None)
    page = Sections(workspace.render(stopped)).texts
    assert "Bits per byte, base 1.535 xz -9 needs 1.871: 18.0% less" in page["Key numbers"]
    assert page["Evaluation"] == "The stage evaluate did not run in this cycle."


def test_a_cycle_that_did_nothing_has_a_page(tmp_path: Path, workspace: Workspace) -> None:
    nothing = record_of(
        workspace,
        stages=(),
        metrics={},
        model=None,
        serving=None,
        seconds=0.0,
        notes=(),
        deadline_hours=None,
        error="busy",
    )
    page = Sections(Workspace(tmp_path).render(nothing)).texts
    assert page["h1"] == "Failed before the first stage, 0.0 s after the start."
    assert page["Timeline"] == "No stage was started."


def test_an_artifact_of_another_cycle_is_not_shown(tmp_path: Path, workspace: Workspace) -> None:
    other = Workspace(tmp_path)
    other.fill(path_prefix="other/")
    wanted, found = (each.manifests["ingest"].digest[:12] for each in (workspace, other))
    page = Sections(other.render(record_of(workspace))).texts
    assert f"was replaced since: found digest {found}, this cycle's is {wanted}" in page["Corpus"]


def test_a_broken_file_costs_its_section_only(tmp_path: Path) -> None:
    broken = Workspace(tmp_path)
    broken.fill()
    (broken.outputs["pretrain"] / "history.csv").write_bytes(b"step,tokens\n1,x\n")
    (broken.outputs["clean"] / "drops.parquet").write_bytes(b"PAR1 not so")
    page = Sections(broken.render(record_of(broken))).texts
    assert "loss" in page["Training"] and "log scale" not in page["Training"]
    assert "parquet" in page["Corpus"].lower() and "Licences" not in page["Corpus"]
    assert "0.620 n 200" in page["Evaluation"]


def test_strangers_words_stay_words(tmp_path: Path) -> None:
    hostile = Workspace(tmp_path)
    hostile.fill(path_prefix=HOSTILE.replace("/", "\\"))
    serving = ServingRecord(url="javascript:alert(1)", first_request_ms=1.0, prompt=HOSTILE, completion=HOSTILE)
    metrics = {HOSTILE: {HOSTILE: {HOSTILE: {"value": 1.0, "low": 0.5, "high": 1.5, "n": 3}}}}
    page = hostile.render(record_of(hostile, serving=serving, metrics=metrics, notes=(HOSTILE,), profile=HOSTILE))
    assert "<script>document" not in page and "<img" not in page
    tags = Sections(page).tags
    assert [tag for tag, _ in tags].count("script") == 1
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert not [
        attributes for tag, attributes in tags if tag == "a" and (attributes["href"] or "").startswith("javascript")
    ]
    assert HOSTILE in Sections(page).texts["The served answer"]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["whole", "late", "long"])
def test_the_page_fits(workspace: Workspace, chromium: Chromium, tmp_path: Path, width: int, kind: str) -> None:
    long = {
        "completion": {
            "a_metric_with_quite_a_long_name_and_no_end": {"value": 123456.7, "low": 1e-7, "high": 1e9, "n": 10**9}
        }
    }
    changes: dict[str, Any] = {
        "whole": {},
        "late": {
            "deadline_hours": 0.02,
            "release": ReleaseRecord(decision="refuse", reasons=("x" * 300,), version="4", environment_commit=None),
        },
        "long": {
            "metrics": dict.fromkeys(("base", "sft", "aligned", "champion", "w" * 40), long),
            "notes": ("/very/long/path" * 40,),
        },
    }[kind]
    page = tmp_path / "page.html"
    page.write_text(workspace.render(record_of(workspace, **changes)), encoding="utf-8")
    chromium.open(page, width)
    assert chromium.value("document.documentElement.scrollWidth") <= width
    assert chromium.value("innerWidth") == width
    assert chromium.value(OVERLAPS) == []
    assert chromium.complaints == []


def test_a_pointer_reads_the_chart(workspace: Workspace, chromium: Chromium, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(workspace.render(record_of(workspace)), encoding="utf-8")
    chromium.open(page, 1280, "dark")
    chromium.value("document.querySelector('.plot').scrollIntoView()")
    box = chromium.value("document.querySelector('.plot').getBoundingClientRect().toJSON()")
    loss = history().row(62, named=True)
    chromium.call(
        "Input.dispatchMouseEvent",
        type="mouseMoved",
        x=box["left"] + 0.63 * box["width"],
        y=box["top"] + box["height"] / 2,
    )
    assert chromium.value("document.querySelector('.chart output').textContent").startswith(
        f"{loss['loss']:.4g} at 3.1"
    )
    assert chromium.value("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"


def test_nothing_runs_but_the_page_s_own_script(workspace: Workspace, chromium: Chromium, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    text = workspace.render(record_of(workspace))
    page.write_text(
        text.replace("<main>", f"<main><script>document.title = 'owned'</script>{HOSTILE}"), encoding="utf-8"
    )
    chromium.open(page, 1280)
    assert chromium.value("document.title").startswith("Promoted")
    assert any("Content Security Policy" in each for each in chromium.complaints)
