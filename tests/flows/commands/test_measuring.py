"""`overnight compare` on kept evaluations: the table, its files, events for MLflow, and what cannot be compared."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from components.core import artifact
from components.core.config import StepConfig, read_settings
from components.core.errors import ArtifactError, DataError
from components.core.events import Events, read_events
from components.evaluation.evaluate import CONTAMINATION, ITEMS
from components.evaluation.measures.contamination import SCHEMA
from components.evaluation.measures.model_measures import ITEM_SCHEMA
from components.execution import sandbox
from dashboards.report.comparison_table import svg
from flows.commands import measuring
from flows.commands.cli import app
from flows.running import params
from tests.serving.random_model import write_random_model
from tests.training.foreign import write_checkpoint
from tests.workspace import ROOT

DOCUMENTS = 60
FUNCTION = 'def add_to_all(values, more):\n    """Add more to each."""\n    return [each + more for each in values]\n'


class NoConfig(StepConfig):
    """No parameters."""


def kept(out: Path, bits: float, parse: float, models: tuple[str, ...] = ("base",), documents: int = DOCUMENTS) -> Path:
    """An evaluation as `overnight evaluate --out` keeps it; the first two documents are contaminated."""
    generator = np.random.default_rng(int(1000 * bits))
    rows = []
    for model in models:
        values = bits + generator.normal(0, 0.02, documents) + np.linspace(0, 1, documents)
        rows += [(model, "likelihood", f"d{n}", "bits_per_byte", float(each), 100.0) for n, each in enumerate(values)]
        passes = (np.arange(documents) < parse * documents).astype(float)
        rows += [(model, "completion", f"d{n}:3", "parse_share", float(each), 1.0) for n, each in enumerate(passes)]
    marked = [("likelihood", "d0", 0.9, True), ("likelihood", "d1", 0.5, True), ("likelihood", "d2", 0.1, False)]
    with artifact.create(out, stage="evaluate", config=NoConfig(), inputs=[], code=Path(__file__)) as draft:
        pl.DataFrame(rows, schema=ITEM_SCHEMA, orient="row").write_parquet(draft.path / ITEMS)
        pl.DataFrame(marked, schema=SCHEMA, orient="row").write_parquet(draft.path / CONTAMINATION)
    return out


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "dvc.yaml", "dvc.yaml")
    guards = "release.criteria.guards=[{metric: completion/parse_share, better: higher, margin: 0.15}]"
    (tmp_path / "params.yaml").write_text(params.overridden((ROOT / "params.yaml").read_text(), [guards]))
    return tmp_path


def test_compare_prints_a_table_and_writes_it(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    better, worse = kept(workspace / "a", 1.2, 0.5), kept(workspace / "b", 1.5, 0.5, ("base", "sft"))
    monkeypatch.setattr("flows.commands.output.Console", lambda **_: Console(width=200))
    found = CliRunner().invoke(app, ["compare", str(better), f"{worse}:sft"], catch_exceptions=False)
    assert found.exit_code == 0
    assert "promote:" in found.stdout and "bits_per_byte" in found.stdout and "files: reports/compare" in found.stdout
    told = json.loads((workspace / "reports/compare/comparison.json").read_text())
    bits, parse = told["rows"]
    assert told["verdict"]["outcome"] == "promote"
    assert bits["low"] < bits["difference"] < bits["high"] < 0
    assert bits["difference"] == pytest.approx(-0.3, abs=0.02)
    assert (bits["n"], bits["contaminated"], parse["contaminated"]) == (60, 2, 0)
    assert bits["difference_clean"] != bits["difference"] and parse["difference_clean"] == parse["difference"] == 0
    text = (workspace / "reports/compare/comparison.md").read_text()
    assert "**promote**" in text and f"| likelihood | bits_per_byte | {bits['candidate']:.4g} |" in text
    drawn = (workspace / "reports/compare/comparison.svg").read_text()
    assert drawn.startswith("<svg") and "likelihood/bits_per_byte" in drawn
    events, _ = read_events(Events.path_of("compare", read_settings()))
    sent = {each["name"]: each["value"] for each in events if each["kind"] == "metric"}
    assert sent == {f"difference/{row['suite']}/{row['metric']}": row["difference"] for row in told["rows"]}
    files = [Path(each["path"]).name for each in events if each["kind"] == "artifact"]
    assert files == ["comparison.json", "comparison.md", "comparison.svg"]


def test_json_is_the_rows(workspace: Path) -> None:
    names = [str(kept(workspace / name, bits, 0.5)) for name, bits in (("a", 1.5), ("b", 1.2))]
    found = CliRunner().invoke(app, ["compare", *names, "--json"], catch_exceptions=False)
    assert [row["metric"] for row in json.loads(found.stdout)] == ["bits_per_byte", "parse_share"]


def test_trainings_with_other_seeds_are_averaged(workspace: Path) -> None:
    """Three on one side: their spread, not the configured deviation, is the error of trainings."""
    seeds = [str(kept(workspace / f"a{number}", 1.2 + 0.2 * number, 0.5)) for number in range(3)]
    rows, verdict = measuring.compare(seeds, [str(kept(workspace / "b", 1.5, 0.5))], workspace / "out")
    assert rows[0]["candidate"] == pytest.approx(1.9, abs=0.02)  # 1.4 and the half that documents add
    reach = 4.303 * 0.2 * (1 / 3 + 1) ** 0.5  # Student's t for two degrees of freedom
    assert rows[0]["high"] - rows[0]["low"] == pytest.approx(2 * reach, rel=0.05)
    assert verdict["outcome"] == "not_enough_evidence"


@pytest.fixture
def small(workspace: Path) -> Path:
    """A workspace with few questions, six held-out documents, and one that was trained on."""
    places = {"next_lines": 4, "functions": 4, "infilled_lines": 2, "infilled_spans": 2, "blocks": 2}
    small = [f"evaluate.completion.{name}={count}" for name, count in places.items()]
    more = ["evaluate.functional.suites=[]", "evaluate.latency.rounds=2", "evaluate.safety.max_prompts=6"]
    more += ["evaluate.safety.max_look_alikes=6", "evaluate.safety.attacks=[plain]"]
    text = params.overridden((ROOT / "params.yaml").read_text(), [*small, *more])
    (workspace / "params.yaml").write_text(text)
    texts = [
        f"{FUNCTION}\n\nNAMES_{number} = [{number}, 'value {number} of many', {number * 7}, 'up to {number}']\n" * 2
        for number in range(6)
    ]
    held_out = pl.DataFrame({"id": [f"{number:064x}" for number in range(6)], "text": texts}).with_columns(
        language=pl.lit("python"), source=pl.lit("made")
    )
    for stage, name in (("tokenize", "tokens/validation.parquet"), ("clean", "clean/part-00000.parquet")):
        path = workspace / "data" / name
        with artifact.create(path.parent, stage=stage, config=NoConfig(), inputs=[], code=Path(__file__)) as draft:
            rows = held_out if stage == "tokenize" else pl.DataFrame({"id": ["other"], "text": [texts[2]]})
            for file_name in {path.name, "validation.documents.parquet"} if stage == "tokenize" else {path.name}:
                rows.write_parquet(draft.path / file_name)
    return workspace


def test_a_model_is_measured_now_or_was_kept(small: Path) -> None:
    """One model, measured twice: no difference; the document that was trained on is named in the evaluation."""
    model = write_random_model(small / "model", 1)
    command = ["evaluate", str(model), "--out", "kept", "--json"]
    found = CliRunner().invoke(app, command, catch_exceptions=False)
    told = {(each["suite"], each["metric"]): each for each in json.loads(found.stdout)}
    times = {name for name in told if name[0] == "latency"}
    assert ("latency", "streams_16_seconds") in times
    kept_times = artifact.read(small / "kept").run["latency"]["model"]
    assert {metric for _, metric in times} == set(kept_times)
    assert told["likelihood", "bits_per_byte"]["n"] == 6
    events, _ = read_events(Events.path_of("evaluate_model", read_settings()))
    sent = {each["name"]: each["value"] for each in events if each["kind"] == "metric"}
    assert sent == {f"{suite}/{metric}": each["value"] for (suite, metric), each in told.items()}
    marked = pl.read_parquet(small / "kept" / CONTAMINATION).filter(suite="likelihood")
    assert marked.filter(pl.col("overlap") == 1)["item"].to_list() == [f"{2:064x}"]
    rows, verdict = measuring.compare([str(model)], ["kept"], small / "out")
    assert {(row["suite"], row["metric"]): row["difference"] for row in rows} == dict.fromkeys(told.keys() - times, 0.0)
    assert all(row["contaminated"] > 0 for row in rows if row["metric"] == "bits_per_byte")
    assert verdict["outcome"] == "not_enough_evidence" and "needed 20" in verdict["reasons"][0]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_model_that_is_not_ours_is_measured(small: Path, kind: str) -> None:
    """With its own tokenizer, ids and engine: every figure that needs no tokens of ours."""
    model = write_checkpoint(small / kind, kind, steps=2)
    found = CliRunner().invoke(app, ["evaluate", str(model), "--json"], catch_exceptions=False)
    assert f"{kind}: no infilling, its tokenizer has no tokens for it" in found.stderr
    told = {(each["suite"], each["metric"]): each for each in json.loads(found.stdout)}
    names = ("bits_per_byte", "xz_bits_per_byte", "language_python_bits_per_byte", "source_made_bits_per_byte")
    likelihood = (*names, "identifier_accuracy", "calibration_error")
    assert {("likelihood", name) for name in likelihood} <= told.keys()
    written = ("exact_match", "edit_similarity", "block_exact_match", "block_edit_similarity", "parse_share")
    assert {("completion", name) for name in written} <= told.keys()
    times = {f"streams_{n}_{name}" for n in (1, 16) for name in ("first_token_seconds", "seconds", "tokens_per_second")}
    assert {metric for suite, metric in told if suite == "latency"} == times
    assert told["likelihood", "bits_per_byte"]["value"] > told["likelihood", "xz_bits_per_byte"]["value"] > 0


def test_a_model_that_is_not_ours_is_compared_with_ours(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In all that both can be asked; what ours alone was asked is named."""
    models = [str(write_random_model(small / "ours", 1)), str(write_checkpoint(small / "gpt2", "gpt2", steps=2))]
    rows, _ = measuring.compare(models[:1], models[1:], small / "out")
    found = {f"{row['suite']}/{row['metric']}" for row in rows}
    assert {"likelihood/bits_per_byte", "completion/parse_share", "safety/over_refusal"} <= found
    told = json.loads((small / "out/comparison.json").read_text())
    assert "infilling/exact_match" in told["left_out"] and not found & set(told["left_out"])
    assert "Not measured on every model: " in (small / "out/comparison.md").read_text()
    assert "left out: infilling/" in " ".join(capsys.readouterr().err.split())


def test_a_model_without_a_tokenizer_is_told_in_one_line(small: Path) -> None:
    """Before any question is drawn."""
    model = write_random_model(small / "model", 1)
    (model / "tokenizer.json").unlink()
    (model / "manifest.json").unlink()
    (small / "data/tokens/validation.parquet").unlink()
    with pytest.raises(ArtifactError) as error:
        measuring.evaluate(model, [])
    assert str(error.value).count("\n") == 0
    assert f"{model}: found no tokenizer.json, needed the tokenizer that the model was trained with" in str(error.value)


def test_what_cannot_be_compared_is_named(workspace: Path) -> None:
    whole = str(kept(workspace / "a", 1.2, 0.5))
    less = str(kept(workspace / "b", 1.2, 0.5, documents=59))
    two = str(kept(workspace / "c", 1.2, 0.5, ("base", "sft")))
    for names, said in (
        ((whole, less), r"likelihood/bits_per_byte: the champion was not asked 1 of the candidate's 60 items \(d59\)"),
        ((whole, two), r"holds base, sft, found no name; name one: .*c:MODEL"),
        ((whole, f"{two}:aligned"), "holds base, sft, found aligned; name one"),
        ((whole, f"{workspace}:base"), "no evaluation, items.parquet is not in it"),
    ):
        with pytest.raises(DataError, match=said):
            measuring.compare([names[0]], [names[1]], workspace / "out")


def test_what_programs_say_is_shown_as_it_is(workspace: Path) -> None:
    """Neither markup of the table's printer nor commands of a terminal."""
    line = {
        "task_id": "[/a]",
        "prompt": "def f():\n",
        "entry_point": "f",
        "canonical_solution": "    raise ValueError('[b]x[/c]\xa0\x1b[31m')\n",
        "test": "def check(f):\n    f()\n",
    }
    (workspace / "s (1).jsonl").write_text(json.dumps(line))
    found = CliRunner().invoke(app, ["execute", "s (1).jsonl"], catch_exceptions=False)
    events, _ = read_events(Events.path_of("execute", read_settings()))
    names = [each["name"] for each in events if each["kind"] == "metric"]
    assert names == [f"s _1_/{name}" for name in ("passed", "total", "seconds")], "names that MLflow takes"
    assert "0/1 passed" in found.stdout
    assert re.search(r"\[/a\] +raised: ValueError: \[b\]x\[/c\]\xa0\\x1b\[31m", found.stdout)


def test_that_no_control_group_is_there_is_said_once(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the result, which scripts read."""
    monkeypatch.setattr(sandbox, "sums_memory", lambda: False)
    (workspace / "s.jsonl").write_text(
        json.dumps(
            {
                "task_id": "t",
                "prompt": "def f():\n",
                "entry_point": "f",
                "canonical_solution": "    return 1\n",
                "test": "def check(f):\n    assert f() == 1\n",
            }
        )
    )
    found = CliRunner().invoke(app, ["execute", "s.jsonl", "--json"], catch_exceptions=False)
    assert json.loads(found.stdout)["passed"] == 1
    assert " ".join(found.stderr.split()).count("sandbox: no control group can be made here") == 1


def test_a_plot_shows_each_difference_on_its_own_scale() -> None:
    """A difference at its bound stands at the right end, whatever its unit; zero stands in the middle."""
    row = {"suite": "s", "metric": "<m>", "difference": 2.0, "low": 2.0, "high": 2.0, "contaminated": 0}
    drawn = svg([row, {**row, "metric": "n", "difference": 0.0, "low": None, "high": None}])
    assert re.findall(r'circle cx="([\d.]+)"', drawn) == ["620.0", "470.0"]
    assert "s/&lt;m&gt;" in drawn
