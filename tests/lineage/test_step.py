"""A bad document among clean ones is found by the spike that it makes, and named by `overnight trace --step`."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import StepConfig
from components.core.errors import DataError
from components.core.graph.closure import ROOT
from components.data.documents.document import document_id
from components.lineage import step_trace as trace_step
from components.tokens import vocabulary
from components.tokens.encoding.encoder import Encoder
from components.tokens.shards.writer import Output, with_ends
from components.training.config import PlanConfig, PretrainConfig
from components.training.engine.spikes import RECORDS
from components.training.engine.trainer import World
from components.training.plan import plan_fixed
from components.training.run.step_reads import check_reading
from components.training.run.worker import train_worker
from components.training.run.worker_input import Work
from flows.commands import trace as trace_command

VOCABULARY_SIZE = 400
STEPS = 110
NOISE = base64.b64encode(np.random.default_rng(0).bytes(700)).decode()
BAD = document_id(NOISE)
PLAN = {
    "mode": "fixed",
    "sequence_length": 64,
    "validations": 1,
    "fixed": {"steps": STEPS, "size": {"layers": 2, "width": 64}},
}
PRETRAIN = {
    "report_every_steps": 10,
    "validation_bytes": 2000,
    "final_validation_bytes": 2000,
    "bigram_steps": 0,  # of 120 short documents that start would know the noise before its first step
    "rates": {"matrix": 0.02, "embedding": 0.1},
    "objectives": {"infill": {"rate": 0.2}},
    "mixture": {
        "phases": [
            {"from_step": 0, "weights": {"code": 3, "web": 1}},
            {"from_step": "decay", "weights": {"code": 1, "web": 1}},
        ]
    },
    "spikes": {"policy": "skip", "max_skips": 99, "threshold": 6.0, "window_steps": 24, "warmup_steps": 20},
}


def texts() -> pl.DataFrame:
    """120 documents that follow one rule, two thirds of them from one source, and one of noise in the other."""
    rows = []
    for number in range(120):
        body = "".join(f"def add_{(number + each) % 7}(x):\n    return x + {each % 10}\n\n" for each in range(30))
        rows.append(
            {"text": f"# {number}\n{body}", "path": f"src/{number}.py", "source": "code" if number % 3 else "web"}
        )
    rows.append({"text": NOISE, "path": "web/noise.txt", "source": "web"})
    frame = pl.DataFrame(rows).with_columns(
        id=pl.Series([document_id(row["text"]) for row in rows]),
        package=pl.lit("octo/x"),
        version=pl.lit("1"),
        licence=pl.when(pl.col("path") == "web/noise.txt").then(pl.lit("BSD-3-Clause")).otherwise(pl.lit("MIT")),
        language=pl.lit("python"),
        bytes=pl.col("text").str.len_bytes().cast(pl.Int64),
    )
    return frame.with_columns(cluster="id").sort("id")


def write(out: str, stage: str, inputs: list[Manifest], config: StepConfig, fill: Any, **statistics: Any) -> Manifest:
    with artifact.create(Path(out), stage=stage, config=config, inputs=inputs, code=Path(__file__)) as draft:
        draft.rows |= fill(draft.path) or {}
        draft.statistics = statistics
    assert draft.manifest is not None
    return draft.manifest


def write_clean(rows: pl.DataFrame, folder: Path) -> None:
    rows.write_parquet(folder / "part-00000.parquet")
    span = {"id": BAD, "kind": "email", "start": 3, "end": 9, "placeholder": "<EMAIL_1>"}
    pl.DataFrame([span]).write_parquet(folder / "redactions.parquet")
    for name, columns in (("drops", ("id", "path", "reason", "detail")), ("contaminated", ("id", "suite", "task_id"))):
        pl.DataFrame(schema=dict.fromkeys(columns, pl.String)).write_parquet(folder / f"{name}.parquet")


def write_tokens(rows: pl.DataFrame, tokenizer: Path, folder: Path) -> dict[str, int]:
    """As the stage does, source by source."""
    encoder = Encoder(tokenizer)
    with Output(folder, vocabulary_size=VOCABULARY_SIZE, shard_tokens=20_000) as output:
        for source in ("code", "web"):
            part = rows.filter(pl.col("source") == source)
            tokens, lengths = with_ends(*encoder.encode(part["text"].to_list()))
            held_out = part["path"].is_in(["src/1.py", "src/3.py"])
            output.append(part.with_columns(encoded_bytes="bytes"), tokens, lengths, held_out)
    return output.rows


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every artifact from data/raw to models/base, the model trained by a real worker."""
    root = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shutil.copyfile(ROOT / "dvc.yaml", "dvc.yaml")
        none, rows = StepConfig(), texts()
        raw = write(
            "data/raw", "ingest", [], none, lambda to: rows.drop("cluster").write_parquet(to / "part-0.parquet")
        )
        clean = write("data/clean", "clean", [raw], none, lambda to: write_clean(rows, to))
        learned = vocabulary.learn(rows["text"].to_list()[:40], VOCABULARY_SIZE)
        tokenizer = write("models/tokenizer", "vocabulary", [clean], none, lambda to: vocabulary.write(learned, to))
        place = Path("models/tokenizer")
        tokens = write("data/tokens", "tokenize", [clean], none, lambda to: write_tokens(rows, place, to))
        plan = plan_fixed(PlanConfig.model_validate_json(json.dumps(PLAN)), VOCABULARY_SIZE)
        planned = write(
            "reports/plan",
            "plan",
            [tokens],
            none,
            lambda to: (to / "plan.json").write_text(plan.model_dump_json()) and {},
        )
        config = PretrainConfig.model_validate_json(json.dumps(PRETRAIN))
        check_reading(config, Path("data/tokens"), plan.sequence_length)
        run = root / "run"
        work = Work(
            config=config,
            plan=plan,
            tokens=root / "data/tokens",
            tokenizer=root / place,
            run=run,
            training_ends_at=None,
            threads=1,
        )
        try:
            figures = train_worker(work, World(), report=lambda _: None, agree=lambda value: value)
        finally:
            torch.use_deterministic_algorithms(False)
        decided = {name: figures[name] for name in ("steps", "decisions", "skipped")}
        fill = lambda to: shutil.copytree(run / "export", to, dirs_exist_ok=True) and {}  # noqa: E731
        inputs = [tokens, tokenizer, planned]
        write("models/base", "pretrain", inputs, config, fill, steps=STEPS, decided=decided, sources=figures["sources"])
    return root


@pytest.mark.slow
def test_the_planted_document_is_recorded_and_traced_first(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    records = [json.loads(line) for line in Path("models/base", RECORDS).read_text().splitlines()]
    assert records and records[0]["documents"][0]["id"] == BAD, records
    first = records[0]
    found = trace_step.trace_step(first["step"])
    assert json.loads(json.dumps(found)) == found
    (spike,) = found["spikes"]
    assert spike["documents"][0]["copies"][0]["licence"] == "BSD-3-Clause"
    assert spike["documents"][0]["copies"][0]["path"] == "web/noise.txt"
    assert spike["documents"][0]["redactions"][0]["kind"] == "email"
    assert found["batch"] > first["batch"] and first["batch"] in spike["skipped"], "the step read a later batch"
    assert len(found["samples"]) == 8 and found["loss"] < spike["loss"]
    trace_step.show(found, Console(width=150))
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert lines[0].startswith(f"spike at step {first['step']}, batch {first['batch']}: loss")
    assert "web/noise.txt" in lines[2] and "BSD-3-Clause" in lines[2] and "redacted 1 email" in lines[2]
    assert trace_command.run(None, None, "", False, True, step=first["step"])
    assert json.loads(capsys.readouterr().out) == found


@pytest.mark.slow
def test_a_batch_that_was_read_is_computed_again(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the recorded samples, and against documents that are looked up token by token."""
    monkeypatch.chdir(workspace)
    found = trace_step.trace_step(STEPS - 1)
    assert found["spikes"] == [] and sum(each["tokens"] for each in found["documents"]) <= 8 * 64
    mean = sum(each["tokens"] * each["nats_per_token"] for each in found["documents"])
    assert found["loss"] == pytest.approx(mean / sum(each["tokens"] for each in found["documents"]))
    assert {each["source"] for each in found["samples"]} == {"code", "web"}
    for step in (-1, STEPS):
        with pytest.raises(DataError, match=f"trained for {STEPS} steps, needed 0 to {STEPS - 1}"):
            trace_step.trace_step(step)


@pytest.mark.slow
def test_a_model_of_other_tokens_is_refused(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(workspace / "models", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "dvc.yaml", "dvc.yaml")
    with pytest.raises(DataError, match="data/tokens: not there, tokenize has not run yet"):
        trace_step.trace_step(0)
    for name in ("data", "reports"):
        shutil.copytree(workspace / name, tmp_path / name)
    write("data/tokens", "tokenize", [], StepConfig(), lambda _: {})
    with pytest.raises(DataError, match=r"models/base: was made from another data/tokens \(\w{12}\) than lies here"):
        trace_step.trace_step(0)
