"""The stage's own worker, from its defaults, on the next token alone: the peers learn nothing else."""

import json
import os
import time
from pathlib import Path

from components.training.engine.devices.cores import SPINNING

os.environ |= SPINNING  # as the stage's worker runs; before torch is imported

import torch

from benchmarks.harness import Outcome
from benchmarks.training.budget import Budget
from benchmarks.training.corpus import HELD_OUT_BYTES, run_number
from components.training.config import Plan, PlanConfig, PretrainConfig
from components.training.engine.model.architectures import build
from components.training.engine.trainer import World
from components.training.parameters.objectives import Infill, ObjectivesConfig
from components.training.plan import shape_for
from components.training.run.worker import started_from_bigrams, train_worker
from components.training.run.worker_input import Work

THREADS = 2
OBJECTIVES = ObjectivesConfig(infill=Infill(rate=0.0))


def train(folder: Path, budget: Budget) -> Outcome:
    """Bits per byte on the held-out documents, as the stage measures them."""
    seed = run_number(folder)
    config = PlanConfig()
    shape = shape_for(config, config.fixed.size, 4096)
    batch_tokens = config.batch_samples * config.sequence_length
    steps = None
    torch.set_num_threads(THREADS)
    if budget.flops is not None:
        bigrams_flops = 6 * PretrainConfig().bigram_steps * shape.vocabulary_size**2 * shape.width
        steps = round(
            (budget.flops - bigrams_flops) / shape.training_flops_per_token(config.sequence_length) / batch_tokens
        )
    plan = Plan(
        mode="deadline" if steps is None else "fixed",
        deadline_hours=1.0,
        stage_seconds={"pretrain": 3600.0},
        shape=shape,
        sequence_length=config.sequence_length,
        batch_samples=config.batch_samples,
        micro_batch_samples=config.micro_batch_samples,
        num_workers=1,
        device="cpu",
        precision="bfloat16",
        compiled=True,
        training_seconds=budget.seconds,
        steps=steps,
        validate_every_steps=75,
    )
    run = folder / f"run-{time.monotonic_ns()}"
    run.mkdir()
    work = Work(
        config=PretrainConfig(seed=seed, objectives=OBJECTIVES, final_validation_bytes=HELD_OUT_BYTES),
        plan=plan,
        tokens=folder / "tokens",
        tokenizer=folder / "tokenizer",
        run=run,
        training_ends_at=time.time() + 3600.0,  # the budget decides
        threads=THREADS,
    )
    if budget.seconds is not None:  # what a first attempt writes down: the clock starts behind the compiler
        seconds = budget.seconds - beginning_seconds(work)
        (run / "budget.json").write_text(json.dumps({"training_seconds": seconds}), encoding="utf-8")
    figures = train_worker(work, World(), report=lambda _: None, agree=lambda value: value)
    return Outcome(
        figure=figures["validation_bits_per_byte"],
        answer={"tokens": figures["tokens"], "steps": figures["steps"], "parameters": shape.parameters},
    )


def beginning_seconds(work: Work) -> float:
    """What it takes to begin as a bigram model with an induction head, which the stage does before it compiles: it is
    training, and counts."""
    model = build(work.plan.shape, work.config.seed, 0)
    started = time.perf_counter()
    started_from_bigrams(work, World(), model, lambda _: None)
    return time.perf_counter() - started
