"""What a clock decided, replayed without it: the same weights, bit for bit."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from components.training import pretrain
from components.training.config import FixedRun, Plan, PretrainConfig, read_plan
from components.training.engine import loop as engine
from components.training.engine.trainer import World
from components.training.run.worker import train_worker
from components.training.run.worker_input import Work
from tests.training.test_pretrain import PRETRAIN, make_inputs

pytestmark = pytest.mark.numeric

REPLAYED = ("steps", "decisions", "skipped", "precision", "compiled", "accelerators", "micro_batch_samples")


def train(folder: Path, name: str, plan: Plan, ends_at: float | None) -> tuple[dict[str, Any], bytes, bytes]:
    """Figures, weights and history of one run in this process."""
    config = PretrainConfig.model_validate_json(json.dumps(PRETRAIN | {"decay_share": 0.5, "checkpoint_seconds": 1000}))
    run = folder / name
    run.mkdir()
    work = Work(
        config=config,
        plan=plan,
        tokens=folder / "tokens",
        tokenizer=folder / "tokenizer",
        run=run,
        training_ends_at=ends_at,
        threads=1,
    )
    try:
        figures = train_worker(work, World(), report=lambda _: None, agree=lambda value: value)
    finally:
        torch.use_deterministic_algorithms(False)
    return figures, (run / "export/model.safetensors").read_bytes(), (run / "export/history.csv").read_bytes()


def test_a_deadline_run_replayed_in_fixed_mode_has_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    make_inputs(tmp_path)
    fixed = read_plan(tmp_path / "plan")
    chosen = {"precision": "bfloat16", "accelerators": ("float8",)}
    short = {"micro_batch_samples": 4}  # of the 8 that are configured: memory decides this
    by_clock = fixed.model_copy(update={"mode": "deadline", "steps": None, "training_seconds": 5.0} | chosen | short)
    with monkeypatch.context() as patch:  # a clock by which each step takes a quarter of a second, on every machine
        ticks = itertools.count(1)
        patch.setattr(engine, "agreed", lambda *_: 0.25 * next(ticks))
        figures, weights, history = train(tmp_path, "clock", by_clock, time.time() + 5.0)
    assert figures["decisions"], "the clock decided when the decay starts"
    _, statistics = pretrain.split_figures(figures, by_clock, 1.0)
    decided = statistics["decided"]
    taken = FixedRun.model_validate_json(json.dumps(decided))  # every decision is one that fixed mode knows
    replayed = fixed.model_copy(update={name: getattr(taken, name) for name in REPLAYED})
    again, replayed_weights, replayed_history = train(tmp_path, "fixed", replayed, None)
    assert again["steps"] == figures["steps"] >= 10
    assert replayed_weights == weights
    assert replayed_history == history
