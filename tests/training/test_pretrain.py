"""The stage as a command, on a real Ray: killed and resumed, and its inputs checked."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.core import artifact
from components.core.config import StepConfig
from components.core.errors import DataError
from components.tokens import vocabulary
from components.tokens.config import NUM_BYTE_TOKENS
from components.tokens.encoding.special import SPECIAL_TOKENS
from components.tokens.shards.token_store import SPLITS, TokenWriter
from components.training import plan, pretrain
from components.training.config import PlanConfig, PretrainConfig, read_plan
from components.training.engine.trainer import World
from components.training.run.worker import train_worker
from components.training.run.worker_input import Work
from tests.training.runs import TOKENS

STEPS = 200
VOCABULARY_SIZE = NUM_BYTE_TOKENS + len(SPECIAL_TOKENS)
PLAN = {
    "mode": "fixed",
    "sequence_length": 32,
    "validations": 2,
    "fixed": {"steps": STEPS, "size": {"layers": 2, "width": 64}},
}
PRETRAIN = {"checkpoint_seconds": 0.2, "report_every_steps": 10}


def make_inputs(folder: Path) -> None:
    """A tokenizer's directory, token files of a hidden rule in 8 documents a split, and a plan."""
    code = Path(plan.__file__)
    with artifact.create(folder / "tokenizer", stage="vocabulary", config=StepConfig(), inputs=[], code=code) as draft:
        vocabulary.write(vocabulary.learn(["def f(): pass\n"] * 100, VOCABULARY_SIZE), draft.path)
    assert draft.manifest is not None
    statistics = {"vocabulary_size": VOCABULARY_SIZE, "train_tokens": 4096, "tokenizer_digest": draft.manifest.digest}
    with artifact.create(folder / "tokens", stage="tokenize", config=StepConfig(), inputs=[], code=code) as draft:
        for split in SPLITS:
            with TokenWriter(draft.path, split, vocabulary_size=VOCABULARY_SIZE, shard_tokens=3000) as writer:
                writer.append(TOKENS[:4096] % 90 + len(SPECIAL_TOKENS), np.full(8, 512))  # printable characters
            rows = pl.DataFrame({"id": [f"{split}{number}" for number in range(8)], "bytes": [1000] * 8})
            rows.write_parquet(draft.path / f"{split}.documents.parquet")
        rows.with_columns(text=pl.lit("def f(): pass\n" * 71 + "# ...\n")).write_parquet(
            draft.path / "validation.parquet"
        )
        draft.statistics = statistics
    (folder / "hardware.json").write_text("{}")
    (folder / "laws.json").write_text("{}")
    plan.run(
        PlanConfig.model_validate_json(json.dumps(PLAN)),
        tokens=folder / "tokens",
        hardware=folder / "hardware.json",
        laws=folder / "laws.json",
        out=folder / "plan",
    )


def command(folder: Path, out: str, state: str) -> subprocess.Popen[str]:
    """The stage, as dvc.yaml runs it."""
    (folder / "params.yaml").write_text(json.dumps({"pretrain": PRETRAIN}))
    paths = [f"--{name}={folder / name}" for name in ("tokens", "tokenizer", "plan")]
    environ = {**os.environ, "OVERNIGHT_STATE": str(folder / state), "OVERNIGHT_RAY_NUM_CPUS": "1"}
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            pretrain.__name__,
            f"--params={folder / 'params.yaml'}",
            *paths,
            f"--out={folder / out}",
        ],
        env={name: value for name, value in environ.items() if name != "OVERNIGHT_CYCLE"},
        stderr=subprocess.PIPE,
        text=True,
    )


def unbroken(folder: Path) -> Path:
    """The export of the same run, from the first step to the last in this process, without Ray."""
    run = folder / "unbroken"
    work = Work(
        config=PretrainConfig.model_validate_json(json.dumps(PRETRAIN)),
        plan=read_plan(folder / "plan"),
        tokens=folder / "tokens",
        tokenizer=folder / "tokenizer",
        run=run,
        training_ends_at=None,
        threads=1,
    )
    try:
        train_worker(work, World(), report=lambda _: None, agree=lambda value: value)
    finally:
        torch.use_deterministic_algorithms(False)
    return run / "export"


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


@pytest.mark.drill
def test_a_killed_stage_resumes_to_the_very_bytes_of_an_unbroken_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "here"))
    make_inputs(tmp_path)
    process = command(tmp_path, "broken", "state")
    until = time.monotonic() + 200
    while not list(tmp_path.glob("state/checkpoints/*/step-*/checkpoint.json")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    assert not (tmp_path / "broken").exists()
    finish(command(tmp_path, "broken", "state"))
    assert not list((tmp_path / "state" / "checkpoints").iterdir()), "checkpoints of a finished run are left"
    assert "resumed at step" in (tmp_path / "state" / "events" / "manual" / "pretrain.jsonl").read_text()
    manifest = artifact.read(tmp_path / "broken")
    for path in unbroken(tmp_path).iterdir():
        assert (tmp_path / "broken" / path.name).read_bytes() == path.read_bytes(), path.name
    assert manifest.statistics["decided"]["steps"] == STEPS
    assert 0 < manifest.statistics["xz_bits_per_byte"] < 8


def test_tokens_of_another_tokenizer_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    make_inputs(tmp_path)
    with artifact.create(
        tmp_path / "other", stage="vocabulary", config=StepConfig(), inputs=[], code=Path(plan.__file__)
    ) as draft:
        (draft.path / "tokenizer.json").write_text("[]")
    with pytest.raises(DataError, match=r"tokens were made with tokenizer \w{64}, found tokenizer \w{64}"):
        pretrain.run(
            PretrainConfig(),
            tokens=tmp_path / "tokens",
            tokenizer=tmp_path / "other",
            plan=tmp_path / "plan",
            out=tmp_path / "out",
        )


def test_the_driver_does_not_import_torch() -> None:
    code = "import sys, components.training.pretrain; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
