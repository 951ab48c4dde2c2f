"""`overnight trace` on two cycles by hand: one in the workspace, an earlier one in DVC's cache; the registry, the
environment repository and the cache are real."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from dvc.repo import Repo
from rich.console import Console

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import Settings, StepConfig
from components.core.errors import BusyError, ConfigError, DataError
from components.core.graph.closure import ROOT
from components.core.graph.stages import read_stages
from components.data.documents.document import document_id
from components.data.intake import opt_out
from components.lineage import document_trace as trace
from components.release import environment, registry
from components.release.environment import EnvironmentFile
from components.serving.versions import WeightedVersion
from flows.commands import trace as trace_command
from flows.commands.trace_tables import show_forgotten
from flows.running.params import compose, defaults
from flows.running.workspace import exclusive

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # MLflow's own

IDS = {name: document_id(name) for name in ("kept", "near", "private", "small", "bad", "held_out", "late", "gone")}
PARAMS = defaults()
PLACES = [each.output for each in read_stages(ROOT) if each.meta.writes in trace.KINDS]


class Seed(StepConfig):
    """Enough of a stage's parameters."""

    seed: int = 3


def write(
    out: str, stage: str, inputs: Sequence[Manifest], files: dict[str, pl.DataFrame | str], **statistics: Any
) -> Manifest:
    with artifact.create(Path(out), stage=stage, config=Seed(), inputs=inputs, code=Path(__file__)) as draft:
        for name, content in files.items():
            if isinstance(content, str):
                (draft.path / name).write_text(content)
            else:
                content.write_parquet(draft.path / name)
                if "tokens" in content:
                    offsets = np.cumsum([0, *content["tokens"]])
                    np.save(draft.path / name.replace(".documents.parquet", ".offsets.npy"), offsets)
        draft.statistics = statistics
    assert draft.manifest is not None
    return draft.manifest


def documents(*names: str, **columns: Any) -> pl.DataFrame:
    shared = {"version": "2.0", "licence": "MIT", "language": "python", "source": "ours", "bytes": 9}
    rows = [{"id": IDS[name], "text": name, "path": f"src/{name}.py", "package": "octo/x", **shared} for name in names]
    return pl.DataFrame(rows).with_columns(**columns).sort("id", "path")


def tokens_of(*names: str) -> pl.DataFrame:
    return pl.DataFrame({"id": sorted(IDS[name] for name in names), "tokens": [50] * len(names)})


def make_cycle(*more: str) -> Manifest:
    """Every artifact of a cycle over the same few documents and some more; the manifest of its last model."""
    copy = documents("kept").with_columns(path=pl.lit("vendor/kept.py"), package=pl.lit("other"))
    raw = write("data/raw", "ingest", [], {"part-00000.parquet": pl.concat([documents(*list(IDS)[:6], *more), copy])})
    quarantine = documents("bad", rule=pl.lit("binary"), value=pl.lit("0.5")).drop("text")
    checked = write(
        "data/checked",
        "check_raw",
        [raw],
        {
            "part-00000.parquet": documents("kept", "near", "private", "small", "held_out", *more),
            "quarantine.parquet": quarantine,
        },
    )
    clean = write("data/clean", "clean", [checked], clean_tables(*more))
    vocabulary = write("models/tokenizer", "vocabulary", [clean], {"tokenizer.json": "{}"})
    tables = {
        "train.documents.parquet": tokens_of("kept", "private", *more),
        "validation.documents.parquet": tokens_of("held_out"),
    }
    tokens = write("data/tokens", "tokenize", [clean, vocabulary], tables)
    plan = write(
        "reports/plan", "plan", [tokens], {"plan.json": json.dumps({"sequence_length": 10, "batch_samples": 2})}
    )
    base = write("models/base", "pretrain", [tokens, vocabulary, plan], {"model": "base"}, steps=20)
    learned = pl.DataFrame({"document": [IDS["private"]] * 2, "name": ["f", "g"]})
    sft = write("models/sft", "sft", [base, clean, tokens, plan], {"instructions.parquet": learned})
    answers = {
        "candidates.parquet": pl.DataFrame({"document": [IDS["kept"]] * 3, "prompt": ["p", "p", "q"]}),
        "preferences.parquet": pl.DataFrame({"prompt": ["p"]}),
    }
    preferences = write("data/preferences", "preferences", [sft, clean, tokens, plan], answers)
    return write("models/aligned", "align", [sft, preferences, plan], {"model": f"aligned{more}"})


def clean_tables(*more: str) -> dict[str, pl.DataFrame | str]:
    cluster = pl.when(pl.col("path") == "src/kept.py").then(pl.lit(IDS["near"])).otherwise("id")
    drops = [
        (IDS["kept"], "vendor/kept.py", "exact_duplicate", "src/kept.py"),
        (IDS["near"], "src/near.py", "near_duplicate", IDS["kept"]),
        (IDS["small"], "src/small.py", "too_small", "5"),
    ]
    span = {"id": IDS["private"], "kind": "email", "start": 3, "end": 9, "placeholder": "<EMAIL_1>"}
    return {
        "part-00000.parquet": documents("kept", "private", "held_out", *more, cluster=cluster),
        "drops.parquet": pl.DataFrame(drops, schema=["id", "path", "reason", "detail"], orient="row"),
        "redactions.parquet": pl.DataFrame([span]),
        "contaminated.parquet": pl.DataFrame(
            schema={"id": pl.String, "path": pl.String, "suite": pl.String, "task_id": pl.String, "overlap": pl.Float64}
        ),
    }


@pytest.fixture(scope="module")
def two_cycles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace: version 1 came from a corpus with `gone` in it, version 2 from one with `late`; 2 is live, and 3
    came from nobody knows where."""
    root = tmp_path_factory.mktemp("workspace")
    settings = Settings(state=root / ".overnight")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        with Repo.init(no_scm=True) as repo:
            make_cycle("gone")
            registry.register(settings, Path("models/aligned"), tags={}, metrics={})
            repo.add(sorted(str(path) for path in PLACES))
        for path in PLACES:
            shutil.rmtree(path)
        shutil.copyfile(ROOT / "dvc.yaml", "dvc.yaml")
        model = make_cycle("late")
        registry.register(settings, Path("models/aligned"), tags={}, metrics={})
        stranger = write("stranger", "align", [], {"model": "stranger"})
        registry.register(settings, Path("stranger"), tags={}, metrics={})
        assert stranger.digest != model.digest
        environment.commit(
            settings,
            "production",
            PARAMS.release,
            change=lambda now: EnvironmentFile(
                environment=now.file.environment,
                versions=(WeightedVersion(version=2, digest=model.digest, weight=100),),
            ),
            subject="Promote",
            body="",
        )
    return root


@pytest.fixture
def workspace(two_cycles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    root = tmp_path / "workspace"
    shutil.copytree(two_cycles, root, symlinks=True)
    monkeypatch.chdir(root)
    return Settings(state=root / ".overnight")


def find(reference: str, settings: Settings) -> dict[str, Any]:
    found = trace.trace(reference, trace_command.sources_of(settings, PARAMS))
    assert json.loads(json.dumps(found)) == found, "scripts read it as JSON"
    return found


def saw(found: dict[str, Any]) -> dict[int, bool | None]:
    return {each["version"]: each["saw"] for each in found["versions"]}


def test_the_way_of_a_document_that_was_trained_on(workspace: Settings) -> None:
    found = find(IDS["kept"][:8], workspace)
    assert found["id"] == IDS["kept"] and found["opted_out"] is None
    assert [each["path"] for each in found["copies"]] == ["src/kept.py", "vendor/kept.py"]
    assert found["copies"][0] == {
        "path": "src/kept.py",
        "package": "octo/x",
        "version": "2.0",
        "licence": "MIT",
        "language": "python",
        "source": "ours",
        "bytes": 9,
    }
    assert found["check_raw"] == {"verdict": "passed", "rules": []}
    clean = found["clean"]
    assert (clean["decision"], clean["shard"], clean["cluster"]) == ("kept", "part-00000.parquet", IDS["near"])
    table = pl.read_parquet("data/clean/part-00000.parquet")
    assert table["id"][clean["row"]] == IDS["kept"]
    assert clean["near_copies"] == [{"id": IDS["near"], "path": "src/near.py", "stays": False}]
    assert clean["drops"] == [{"path": "vendor/kept.py", "reason": "exact_duplicate", "detail": "src/kept.py"}]
    assert found["tokens"]["split"] == "train" and found["tokens"]["end"] - found["tokens"]["start"] == 50
    assert found["training"]["num_steps"] == 20 and len(found["training"]["reads"]) > 5
    assert found["preferences"] == {"prompts": 2, "answers": 3, "pairs": 1}
    assert {each["stage"]: each["saw"] for each in found["models"]} == dict.fromkeys(("pretrain", "sft", "align"), True)
    assert saw(found) == {1: True, 2: True, 3: None}
    serving = {each["version"]: each["environments"] for each in found["versions"]}
    assert serving == {1: [], 2: [{"environment": "production", "desired_weight": 100, "live_weight": 0}], 3: []}
    assert found["notes"] == []


def test_documents_that_did_not_get_far(workspace: Settings) -> None:
    bad = find("src/bad.py", workspace)
    assert bad["check_raw"] == {
        "verdict": "quarantined",
        "rules": [{"path": "src/bad.py", "rule": "binary", "value": "0.5"}],
    }
    assert bad["clean"]["decision"] == "not there" and bad["tokens"] is None
    small = find("small.py", workspace)
    assert small["clean"]["drops"] == [{"path": "src/small.py", "reason": "too_small", "detail": "5"}]
    near = find(IDS["near"], workspace)
    assert near["clean"]["decision"] == "dropped"
    assert near["clean"]["near_copies"] == [{"id": IDS["kept"], "path": "src/kept.py", "stays": True}]
    private = find("src/private.py", workspace)
    assert [each["placeholder"] for each in private["clean"]["redactions"]] == ["<EMAIL_1>"]
    assert private["instructions"] == ["f", "g"]
    held_out = find("src/held_out.py", workspace)
    assert held_out["tokens"]["split"] == "validation" and held_out["training"] is None
    for each in (bad, small, near, held_out):
        assert saw(each) == {1: False, 2: False, 3: None}


def test_an_earlier_version_is_looked_into_through_the_cache_and_never_guessed(workspace: Settings) -> None:
    assert saw(find("src/late.py", workspace)) == {1: False, 2: True, 3: None}
    gone = find(IDS["gone"], workspace)
    assert gone["copies"] == [] and gone["tokens"] is None
    assert saw(gone) == {1: True, 2: False, 3: None}
    shutil.rmtree(".dvc/cache")
    late = find("src/late.py", workspace)
    assert saw(late) == {1: None, 2: True, 3: None}
    assert "neither here nor in DVC's cache" in late["versions"][0]["why"]
    with pytest.raises(DataError, match="no registered model is known to have it"):
        find(IDS["gone"], workspace)


def test_what_has_not_run_and_what_does_not_fit_is_said(workspace: Settings) -> None:
    for path in ("models/base", "models/sft", "models/aligned", "data/preferences"):
        shutil.rmtree(path)
    write("data/raw", "ingest", [], {"part-00000.parquet": documents("kept", "late")})
    found = find(IDS["kept"], workspace)
    assert found["training"] is None and found["instructions"] is None and found["models"] == []
    assert any(note.startswith("models/base: not there, pretrain has not run") for note in found["notes"])
    assert any(note.startswith("data/checked: was made from another data/raw") for note in found["notes"])
    for path in PLACES:
        shutil.rmtree(path, ignore_errors=True)
    with pytest.raises(DataError, match="there is no corpus to look it up in"):
        find("src/kept.py", workspace)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("src/nothing.py", "fits no document of the corpus; give an id or a path in it"),
        ("abcdef", "an id is looked up from 8 characters on"),
        ("0" * 64, "no document of the corpus has this id"),
        ("__init__.py", "fits 2 documents"),
    ],
)
def test_a_reference_that_fits_nothing_or_too_much_is_one_line(
    workspace: Settings, reference: str, message: str
) -> None:
    rows = documents("kept", "late", path=pl.format("{}/__init__.py", "text"))
    write("data/raw", "ingest", [], {"part-00000.parquet": rows})
    with pytest.raises(DataError) as caught:
        find(reference, workspace)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_forgetting_names_who_saw_it_and_is_safe_to_repeat(workspace: Settings) -> None:
    Path("opt-out.yaml").write_text("# Asked by mail.\n- path: internal\n")
    sources = trace_command.sources_of(workspace, PARAMS)
    found = trace_command.forgotten("src/kept.py", sources, reason="ticket 7", near=False)
    assert found["opt_out"] == {"file": "opt-out.yaml", "added": [IDS["kept"]], "listed_before": []}
    entry = opt_out.Entry(id=IDS["kept"], known_as="src/kept.py", reason="ticket 7")
    assert opt_out.read(Path("opt-out.yaml"))[1] == entry
    assert Path("opt-out.yaml").read_text().startswith("# Asked by mail.\n- path: internal\n")
    assert found["near_copies_that_stay"] == [{"id": IDS["near"], "path": "src/near.py", "stays": False}]
    told = "\n".join(found["next"])
    assert "run `overnight cycle`: the text leaves at ingest, with its exact copies (2 in all)" in told
    assert "near copies that are other texts: 1;" in told
    assert "version 2 saw it and serves in production" in told
    assert "registered and not serving, saw it: 1;" in told and "not known for 3" in told
    before = Path("opt-out.yaml").read_text()
    again = trace_command.forgotten(IDS["kept"], trace_command.sources_of(workspace, PARAMS), reason="", near=False)
    assert again["opt_out"]["listed_before"] == [IDS["kept"]] and not again["opt_out"]["added"]
    assert Path("opt-out.yaml").read_text() == before
    assert find(IDS["kept"], workspace)["opted_out"]["reason"] == "ticket 7"
    near = trace_command.forgotten(IDS["kept"], trace_command.sources_of(workspace, PARAMS), reason="", near=True)
    assert near["opt_out"]["added"] == [IDS["near"]] and near["near_copies_that_stay"] == []
    console = Console(width=200, record=True, quiet=True)
    show_forgotten(near, console)
    rows = pl.read_parquet("data/raw/part-00000.parquet")
    left = rows.filter(rows.select(opt_out.opted_out(opt_out.read(Path("opt-out.yaml")))).to_series().is_not_null())
    assert sorted(left["path"]) == ["src/kept.py", "src/near.py", "vendor/kept.py"]


def test_nothing_is_forgotten_while_a_cycle_runs(workspace: Settings) -> None:
    with exclusive(workspace, "a cycle"), pytest.raises(BusyError, match="a cycle"):
        trace_command.forgotten("src/kept.py", trace_command.sources_of(workspace, PARAMS), reason="", near=False)
    assert not Path("opt-out.yaml").exists()


def test_a_registry_that_does_not_answer_is_not_a_no_and_the_takedown_stands(workspace: Settings) -> None:
    away = workspace.model_copy(update={"mlflow_url": "http://127.0.0.1:9"})
    found = trace_command.forgotten("src/kept.py", trace_command.sources_of(away, PARAMS), reason="", near=False)
    assert found["versions"] is None and found["opt_out"]["added"] == [IDS["kept"]]
    assert any(note.startswith("versions and environments are not known: MLflow at") for note in found["notes"])
    assert found["next"][-1] == "the registered models are not known now: repeat this when the registry answers"


def test_the_command_prints_tables_and_json_without_torch(
    workspace: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("params.yaml").write_text(compose("smoke", ROOT / "profiles"))
    variables = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OVERNIGHT_STATE": str(workspace.state)}
    command = [sys.executable, "-X", "importtime", "-m", "flows.commands.cli", "trace", "--document", "src/kept.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr
    for part in (
        "src/kept.py of octo/x 2.0 (ours), MIT",
        "times in epoch",
        "version 2",
        "production at 100 %, 0 % live",
    ):
        assert part in done.stdout, done.stdout
    assert not [line for line in done.stderr.splitlines() if line.rstrip().endswith(("| torch", "| transformers"))]
    monkeypatch.setenv("OVERNIGHT_STATE", str(workspace.state))
    assert trace_command.run(None, IDS["private"], "by law", False, True)
    assert json.loads(capsys.readouterr().out)["opt_out"]["added"] == [IDS["private"]]
    with pytest.raises(ConfigError, match="--reason and --near belong to --forget"):
        trace_command.run("a", None, "", True, False)
    for wrong in (("a", "b"), (None, None)):
        with pytest.raises(ConfigError, match="needed one of --document ID, --step N and --forget ID"):
            trace_command.run(*wrong, "", False, False)
