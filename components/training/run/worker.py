"""One training worker: open the tokens, build the model, run the engine, and (worker 0) validate and export.

Imports torch, so only workers import it. Knows of Ray only what it is handed: a world, and where to report.
Worker 0 leaves a Hugging Face directory, history.csv and validation.csv in `<run>/export`, and returns the figures of
the run.
"""

import csv
import errno
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.generation.configuration_utils import GenerationConfig
from transformers.modeling_utils import PreTrainedModel

from components.core.artifact import write_file
from components.tokens.encoding.special import SpecialTokens
from components.tokens.foreign.weights import linked
from components.tokens.shards.token_store import TokenStore
from components.training.engine import checkpoint
from components.training.engine.batches.batch import Batch
from components.training.engine.batches.prefetch import Prefetched
from components.training.engine.checkpoint_writer import UnwrittenCheckpointError
from components.training.engine.devices.accelerators import AcceleratorError
from components.training.engine.devices.cores import has_machine, pinned
from components.training.engine.figures import Report
from components.training.engine.loop import Outcome, train
from components.training.engine.model import bigrams, continued, induction
from components.training.engine.model.architectures import build
from components.training.engine.optimizer import Rates
from components.training.engine.pace import Pace
from components.training.engine.schedule import Schedule, decay_start, fixed
from components.training.engine.spikes import RECORDS, Rules, SpikeError, Watch
from components.training.engine.trainer import DTYPES, NonFiniteLossError, OutOfMemoryError, Recipe, Trainer, World
from components.training.run import micro_batch
from components.training.run.held_out import Validation, nats_per_label
from components.training.run.samples import Samples
from components.training.run.step_reads import reads_by_source
from components.training.run.worker_input import EndOfRunError, Work

# A restart would end the same way, and no restart finds more room.
ENDS = (
    *(NonFiniteLossError, OutOfMemoryError, SpikeError),
    *(continued.CheckpointError, AcceleratorError, EndOfRunError),
)
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}

# The tables of the export, and their columns by the names of the run's history. Validations have rows of their own:
# a curve with a gap at every report that had none is drawn as nothing.
TABLES = {
    "history.csv": {"step": "step", "tokens": "tokens", "loss": "loss", "learning_rate": "learning_rate"},
    "validation.csv": {"step": "step", "tokens": "tokens", "bits_per_byte": "validation_bits_per_byte"},
}


def model_of(work: Work, special: SpecialTokens) -> PreTrainedModel:
    """The model that the run begins with: new, or a checkpoint's. Raises CheckpointError for a useless one."""
    plan = work.plan
    if plan.initial is None:
        return build(plan.shape, work.config.seed, special.end_of_text)
    assert work.config.init_from is not None, "the driver has compared plan and config"
    directory = Path(work.config.init_from)
    with linked(directory) as opened:
        return continued.load(
            directory,
            plan.shape,
            known_tokens=plan.initial.known_tokens,
            tokens=plan.initial.vocabulary_size,
            end_of_text=special.end_of_text,
            rope_scaling=plan.rope_scaling,
            opened=opened,
        )


def started_from_bigrams(work: Work, world: World, model: PreTrainedModel, note: Callable[[str], None]) -> None:
    """Set the embeddings of a new decoder to those of a bigram model of the corpus, and write an induction head beside
    it where the configuration says so; the same on every worker.

    Each attempt does it anew: a run whose checkpoints are all lost begins as the first one did.
    """
    steps, shape = work.config.bigram_steps, work.plan.shape
    new = work.plan.initial is None and shape.kind == "decoder" and not shape.tied
    if not (steps and new and shape.vocabulary_size <= bigrams.MAXIMUM_VOCABULARY):
        return
    if world.rank == 0:
        started = time.monotonic()
        pairs = TokenStore(work.tokens, "train").pairs(shape.vocabulary_size)
        nats, copies = _begin(work, model, pairs)
        also = ", with an induction head" if copies else ""
        note(f"began as a bigram model of {nats:.3f} nats per token{also} in {time.monotonic() - started:.1f} s")
    if world.size > 1:
        for parameter in model.parameters():
            shared = parameter.data.to(world.device)
            torch.distributed.broadcast(shared, src=0)
            parameter.data.copy_(shared)


def _begin(work: Work, model: PreTrainedModel, pairs: NDArray[np.int64]) -> tuple[float, bool]:
    """Nats per token of the bigram model, and whether an induction head was written."""
    shape = work.plan.shape
    embedding, output = model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data
    features = induction.features_of(shape) if work.config.induction_head else 0
    if features:
        induction.reserve(embedding, features)
    kept = features + 1 if features else 0
    dtype = DTYPES[work.plan.precision]
    nats = bigrams.fit(embedding, output, pairs, steps=work.config.bigram_steps, dtype=dtype, kept=kept)
    if features:
        induction.write(model, shape, torch.from_numpy(pairs.sum(1)).float(), work.config.seed)
    return nats, features > 0


def recipe_of(work: Work) -> Recipe:
    """The engine's recipe from plan and config."""
    config, plan = work.config, work.plan
    return Recipe(
        precision=plan.precision,
        compiled=plan.compiled,
        accelerators=plan.accelerators,
        micro_batch_samples=micro_batch.samples_of(work.run, plan.micro_batch_samples),
        rates=Rates(
            **config.rates_at(plan.shape.width).model_dump(),
            optimizer=config.update.optimizer,
            adamw_matrix=config.update.adamw_matrix,
            average_decay=config.update.average_decay,
        ),
        z_loss=config.update.z_loss,
        flops_per_token=plan.shape.training_flops_per_token(plan.sequence_length),
        report_every_steps=config.report_every_steps,
        validate_every_steps=plan.validate_every_steps,
        checkpoint_seconds=config.checkpoint_seconds,
        parallel=plan.parallel,
        activation_checkpointing=plan.activation_checkpointing,
        # What encoders read of other documents, and an encoder-decoder's padding, is always kept apart.
        isolate_documents=config.objectives.isolate_documents or plan.shape.kind != "decoder",
    )


def schedule_of(work: Work) -> Schedule:
    """Decisions of the plan, or the configured share of its steps; none yet under a deadline."""
    config, plan = work.config, work.plan
    decisions = list(plan.decisions)
    if plan.steps is not None and not decisions:
        decisions = [(decay_start(plan.steps, decay_share_of(work)), plan.steps)]
    return fixed(config.warmup_steps, config.final_share, decisions, config.update.schedule)


def decay_share_of(work: Work) -> float:
    """The share of a run in which the rate falls: all of it along a cosine."""
    return 1.0 if work.config.update.schedule == "cosine" else work.config.decay_share


def pace_of(work: Work, world: World, agree: Callable[[float], float]) -> Pace | None:
    """The clock of a deadline run: what the stage has left once the first step can be taken; None in fixed mode.

    Written down on the first attempt: a resumed run has the rest of it, or less when the stage must end sooner.
    """
    if work.plan.training_seconds is None or work.training_ends_at is None:
        return None
    path = work.run / "budget.json"
    left = max(0.0, work.training_ends_at - time.time())
    if world.rank == 0 and not path.exists():
        left = max(work.plan.training_seconds / 2, left)
        write_file(path, json.dumps({"training_seconds": left}).encode())
    seconds = json.loads(path.read_bytes())["training_seconds"] if world.rank == 0 else 0.0
    return Pace(training_seconds=agree(seconds), decay_share=decay_share_of(work), left_seconds=agree(left))


def train_worker(
    work: Work, world: World, *, report: Callable[[dict[str, Any]], None], agree: Callable[[float], float]
) -> dict[str, Any]:
    """Train to the end and, on worker 0, export. Returns the figures of the run; {} on other workers.

    report   takes {"notes": [...]} and the fields of engine.Report; called equally often on every worker
    agree    worker 0's number on every worker
    """
    torch.set_num_threads(work.threads)
    if work.plan.mode == "fixed" or world.device == "cpu":
        # Also by the clock, or its replay has other bits: two threads adding to one embedding race (compiled, bf16).
        torch.use_deterministic_algorithms(True)
    schedule, reporter = schedule_of(work), Reporter(report)
    samples = Samples(work, world.rank, world.size, schedule)
    trainer, warm_up_seconds = warmed_up(work, world, samples(0), reporter)
    reporter.pace = pace = pace_of(work, world, agree)
    is_decoder = work.plan.shape.kind == "decoder"  # others have no bits per byte, and are measured at the end
    validate = Validation(work, work.config.validation_bytes, world.device) if is_decoder else None
    watch = Watch(Rules(**work.config.spikes.model_dump()), samples, work.run)
    with (
        _held(work) if world.rank == 0 else nullcontext(),
        Prefetched(samples, samples.basis) as batches,
        pinned(work.threads if has_machine(world.size, world.device) else 1),
    ):
        outcome = train(
            trainer,
            batches=Announced(batches, reporter.say),
            schedule=schedule,
            pace=pace,
            run=work.run,
            report=reporter.row,
            validate=validate,
            began_at=work.began_at,
            watch=watch,
            sources=samples.sources,
        )
        if world.rank != 0:
            return {}
        figures = _finish(work, trainer, outcome, schedule) | _read(work, samples, watch, outcome)
    compiled = trainer.loss is not trainer.eager and work.plan.compiled
    in_training = validate.indices.tolist() if validate else []
    return {
        **figures,
        "validation_indices_in_training": in_training,
        "warm_up_seconds": warm_up_seconds,
        "compiled": compiled,
    }


def warmed_up(work: Work, world: World, batch: Batch, reporter: "Reporter") -> tuple[Trainer, float]:
    """The trainer, ready for its first step on batches like this one, and the seconds that this took."""
    model = model_of(work, SpecialTokens.read(work.tokenizer))
    started_from_bigrams(work, world, model, reporter.notes.append)
    trainer = Trainer(model, recipe_of(work), world, reporter.notes.append)
    started = time.monotonic()
    trainer.warm_up(batch)
    seconds = time.monotonic() - started
    reporter.say(f"{'compiled' if work.plan.compiled else 'warmed up'} in {seconds:.1f} s")
    return trainer, seconds


class Reporter:
    """What a worker reports: rows, and with each report the notes since the last one."""

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        self.report = report
        self.notes: list[str] = []
        self.pace: Pace | None = None

    def say(self, *lines: str) -> None:
        """Notes alone."""
        self.report({"notes": [*self.notes, *lines]})
        self.notes.clear()

    def row(self, row: Report) -> None:
        """What the engine says every few steps."""
        seconds = self.pace.training_seconds if self.pace else None
        self.report({**asdict(row), "notes": self.notes.copy(), "training_seconds": seconds})
        self.notes.clear()


class Announced:
    """Batches that say, on every worker alike, when the run has resumed and when its first step is taken."""

    def __init__(self, samples: Callable[[int], Batch], say: Callable[..., None]) -> None:
        self.samples = samples
        self.say = say
        self.calls = 0
        self.began = time.monotonic()

    def __call__(self, step: int) -> Batch:
        """The samples of a step: first to warm up on, then of the first step, then of the one after it."""
        self.calls += 1
        if self.calls == 1:
            self.say()
        elif self.calls == 2:
            self.began = time.monotonic()
        elif self.calls == 3:
            self.say(f"first step in {time.monotonic() - self.began:.2f} s")
        return self.samples(step)


def end_of(error: BaseException) -> str | None:
    """Why a restart would end as this error did, in one line; None for what may pass."""
    if isinstance(error, ENDS):
        return str(error)
    cause: BaseException | None = error
    while cause is not None:
        if (isinstance(cause, OSError) and cause.errno in NO_ROOM) or "No space left" in str(cause):
            says_so = isinstance(error, UnwrittenCheckpointError)
            return str(error) if says_so else f"nothing more can be written: {cause}; free the cause and run again"
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def _held(work: Work) -> Iterator[None]:
    """Be the only run that writes here. Raises EndOfRunError when another one keeps on."""
    with ExitStack() as stack:
        try:
            stack.enter_context(checkpoint.held(work.run))
        except TimeoutError as error:
            raise EndOfRunError(str(error)) from error
        yield


def _read(work: Work, samples: Samples, watch: Watch, outcome: Outcome) -> dict[str, Any]:
    """Leave the records of spikes beside the model; what of each source was read, and what was passed over."""
    lines = [json.dumps(record) + "\n" for record in watch.records]
    (work.run / "export" / RECORDS).write_text("".join(lines))
    return {
        "spikes": len(watch.records),
        "skipped": samples.skipped,
        "sources": reads_by_source(
            samples.windows(),
            steps=outcome.steps,
            batch_samples=work.plan.batch_samples,
            skipped=samples.skipped,
        ),
    }


def _finish(work: Work, trainer: Trainer, outcome: Outcome, schedule: Schedule) -> dict[str, Any]:
    """Validate in float32, export, and say how it went."""
    export = work.run / "export"
    export.mkdir(parents=True, exist_ok=True)
    model = _trained(work, outcome.steps, trainer.world.device)
    started = time.monotonic()
    validation = Validation(work, work.config.final_validation_bytes, trainer.world.device)
    if work.plan.shape.kind == "decoder":
        measured: dict[str, float | None] = {"validation_bits_per_byte": validation(model)}
    else:
        measured = {"validation_nats_per_label": nats_per_label(model, work)}
    seconds = time.monotonic() - started
    if work.plan.shape.kind != "encoder":
        _prepare_for_generation(model, SpecialTokens.read(work.tokenizer))
    model.save_pretrained(export)
    rows = _write_tables(export, outcome)
    return {
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "decisions": schedule.decisions,
        "micro_batch_samples": trainer.micro_batch_samples,
        "rows": rows,
        **measured,
        "validation_bytes": validation.num_bytes,
        "validation_indices": validation.indices.tolist(),
        "training_seconds": outcome.seconds,
        "checkpoint_stall_seconds": outcome.checkpoint_stall_seconds,
        "data_stall_share": outcome.data_stall_share,
        "validation_seconds": seconds,
    }


def _trained(work: Work, steps: int, device: str) -> PreTrainedModel:
    """The model of the last checkpoint in float32, ready to be measured."""
    model = model_of(work, SpecialTokens.read(work.tokenizer))
    last = checkpoint.Checkpoint(work.run / checkpoint.name_of(steps))
    last.verify()  # of sharded weights no worker holds all: they are gathered by reading them
    weights = last.weights(checkpoint.AVERAGE if work.config.update.average_decay else checkpoint.WEIGHT)
    result = model.load_state_dict(weights, strict=False)
    parameters = dict(model.named_parameters())  # a tied weight has one name here, and two in the state
    lacking = sorted({name for name in result.missing_keys if name in parameters} | set(result.unexpected_keys))
    if lacking:
        raise EndOfRunError(f"{last.path}: its weights are not those of the model, as {lacking[0]}; run again")
    return model.to(device).eval()


def _prepare_for_generation(model: PreTrainedModel, special: SpecialTokens) -> None:
    """Say in its configuration how the model of a decoder is asked for text."""
    model.config.use_cache = True
    model.generation_config = GenerationConfig(eos_token_id=special.end_of_text, pad_token_id=special.filler)
    if model.config.is_encoder_decoder:  # its answers begin with what fills up batches (objectives/packing.py)
        model.config.decoder_start_token_id = special.filler
        model.generation_config.decoder_start_token_id = special.filler


def _write_tables(directory: Path, outcome: Outcome) -> dict[str, int]:
    """TABLES; returns how many rows each has."""
    rows = {}
    for name, columns in TABLES.items():
        complete = [row for row in outcome.history if all(row[each] is not None for each in columns.values())]
        with (directory / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([row[each] for each in columns.values()] for row in complete)
        rows[name] = len(complete)
    return rows
