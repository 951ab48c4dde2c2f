"""One training worker: open the tokens, build the model, run the engine, and (worker 0) validate and export.

Imports torch, so only workers import it. Knows of Ray only what it is handed: a world, and where to report.
Worker 0 leaves a Hugging Face directory and history.csv in `<run>/export`, and returns the figures of the run.
"""

import csv
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import polars as pl
import torch
from transformers.generation.configuration_utils import GenerationConfig
from transformers.modeling_utils import PreTrainedModel

from components.core.artifact import write_file
from components.tokens.special import END_OF_TEXT_ID, FIM_PAD_ID
from components.tokens.split import sample_of
from components.tokens.store import TokenStore
from components.training import checkpoint
from components.training.engine import Outcome, train
from components.training.figures import Report
from components.training.model import build
from components.training.optimizer import Rates
from components.training.pace import Pace
from components.training.samples import Samples
from components.training.schedule import Schedule, fixed
from components.training.trainer import Recipe, Trainer, World
from components.training.validation import bits_per_byte, nats
from components.training.work import Work

HISTORY_COLUMNS = ("step", "tokens", "loss", "learning_rate", "validation_bits_per_byte")


class Validation:
    """Held-out documents, drawn once by the seed."""

    def __init__(self, work: Work, limit_bytes: int, device: str) -> None:
        store = TokenStore(work.tokens, "validation")
        num_bytes = pl.read_parquet(work.tokens / "validation.documents.parquet", columns=["bytes"])["bytes"].to_numpy()
        self.indices = sample_of(num_bytes, limit_bytes, work.config.seed)
        self.documents = [store.document(int(index)) for index in self.indices]
        self.num_bytes = int(num_bytes[self.indices].sum())
        self.context = work.plan.sequence_length
        self.device = device

    def __call__(self, model: PreTrainedModel) -> float:
        """Bits per byte."""
        total = nats(model, self.documents, self.context, END_OF_TEXT_ID, self.device)
        return bits_per_byte(total, self.num_bytes)


def recipe_of(work: Work) -> Recipe:
    """The engine's recipe from plan and config."""
    config, plan = work.config, work.plan
    return Recipe(
        precision=plan.precision,
        compiled=plan.compiled,
        micro_batch_samples=plan.micro_batch_samples,
        rates=Rates(**config.rates.model_dump()),
        report_every_steps=config.report_every_steps,
        validate_every_steps=config.validate_every_steps,
        checkpoint_seconds=config.checkpoint_seconds,
        # What encoders read of other documents, and an encoder-decoder's padding, is always kept apart.
        isolate_documents=config.objectives.isolate_documents or plan.shape.kind != "decoder",
    )


def schedule_of(work: Work) -> Schedule:
    """Decisions of the plan, or the configured share of its steps; none yet under a deadline."""
    config, plan = work.config, work.plan
    decisions = list(plan.decisions)
    if plan.steps is not None and not decisions:
        decisions = [(plan.steps - max(1, round(plan.steps * config.decay_share)), plan.steps)]
    return fixed(config.warmup_steps, config.final_share, decisions)


def pace_of(work: Work, world: World, agree: Callable[[float], float]) -> Pace | None:
    """The clock of a deadline run: what the stage has left once the first step can be taken; None in fixed mode.

    Written down on the first attempt, so that a resumed run keeps its budget and the time already spent counts.
    """
    if work.plan.training_seconds is None or work.training_ends_at is None:
        return None
    path = work.run / "budget.json"
    if world.rank == 0 and not path.exists():
        seconds = max(work.plan.training_seconds / 2, work.training_ends_at - time.time())
        write_file(path, json.dumps({"training_seconds": seconds}).encode())
    seconds = json.loads(path.read_bytes())["training_seconds"] if world.rank == 0 else 0.0
    return Pace(training_seconds=agree(seconds), decay_share=work.config.decay_share)


def train_worker(
    work: Work, world: World, *, report: Callable[[dict[str, Any]], None], agree: Callable[[float], float]
) -> dict[str, Any]:
    """Train to the end and, on worker 0, export. Returns the figures of the run; {} on other workers.

    report   takes {"notes": [...]} and the fields of engine.Report; called equally often on every worker
    agree    worker 0's number on every worker
    """
    torch.set_num_threads(work.threads)
    if work.plan.mode == "fixed":
        torch.use_deterministic_algorithms(True)
    notes: list[str] = []
    samples = Samples(work, world.rank, world.size)
    model = build(work.plan.shape, work.config.seed, END_OF_TEXT_ID)
    trainer = Trainer(model, recipe_of(work), world, notes.append)
    warmed = time.monotonic()
    trainer.warm_up(samples(0))
    warm_up_seconds = time.monotonic() - warmed
    pace = pace_of(work, world, agree)
    validation = Validation(work, work.config.validation_bytes, world.device)

    def tell(row: Report) -> None:
        report({**asdict(row), "notes": notes.copy(), "training_seconds": pace.training_seconds if pace else None})
        notes.clear()

    schedule = schedule_of(work)
    with checkpoint.held(work.run) if world.rank == 0 else nullcontext():
        outcome = train(
            trainer, batches=samples, schedule=schedule, pace=pace, run=work.run, report=tell, validate=validation
        )
        if world.rank != 0:
            return {}
        figures = _finish(work, trainer, outcome, schedule)
    compiled = trainer.loss is not trainer.eager and work.plan.compiled
    return {**figures, "warm_up_seconds": warm_up_seconds, "compiled": compiled}


def _finish(work: Work, trainer: Trainer, outcome: Outcome, schedule: Schedule) -> dict[str, Any]:
    """Validate in float32, export, and say how it went."""
    export = work.run / "export"
    export.mkdir(parents=True, exist_ok=True)
    model = build(work.plan.shape, work.config.seed, END_OF_TEXT_ID)
    last = checkpoint.Checkpoint(work.run / checkpoint.name_of(outcome.steps))
    last.verify()  # of sharded weights no worker holds all: they are gathered by reading them
    model.load_state_dict(last.weights(), strict=not work.plan.shape.tied)
    model.to(trainer.world.device).eval()
    started = time.monotonic()
    validation = Validation(work, work.config.final_validation_bytes, trainer.world.device)
    bits = validation(model)
    seconds = time.monotonic() - started
    model.config.use_cache = True
    model.generation_config = GenerationConfig(eos_token_id=END_OF_TEXT_ID, pad_token_id=FIM_PAD_ID)
    model.save_pretrained(export)
    with (export / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, HISTORY_COLUMNS)
        writer.writeheader()
        writer.writerows(
            {name: "" if row[name] is None else row[name] for name in HISTORY_COLUMNS} for row in outcome.history
        )
    return {
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "decisions": schedule.decisions,
        "history_rows": len(outcome.history),
        "validation_bits_per_byte": bits,
        "validation_bytes": validation.num_bytes,
        "validation_indices": validation.indices.tolist(),
        "training_seconds": outcome.seconds,
        "validation_seconds": seconds,
    }
