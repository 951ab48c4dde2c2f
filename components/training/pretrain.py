"""Pretrain a model on Ray Train.

Reads   token files (`--tokens`), the tokenizer (`--tokenizer`), the plan (`--plan`)
Writes  a Hugging Face directory with the tokenizer's files, history.csv and validation.csv; statistics hold the
        decisions that fixed mode replays
A run that was killed anywhere goes on from its last good checkpoint when the same command is given again: checkpoints
lie under a key of config, code and inputs, and go once the artifact is complete. In deadline mode the time spent before
a kill counts.
Workers that fail are restarted (workers.py). Not covered: workers that share no file system, which are refused.

This process does not import torch: the workers do, while it only waits.
"""

import lzma
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import Settings, digest_of, read_settings
from components.core.errors import ConfigError, DataError
from components.core.events import Events
from components.core.graph.closure import code_digest
from components.core.step import main
from components.deadline.budget import Budget
from components.machine import cluster
from components.tokens.foreign.adoption import digest_of_checkpoint
from components.tokens.foreign.initial import INITIAL
from components.tokens.foreign.location import checkpoint_directory
from components.training.config import Plan, PretrainConfig, objection, read_plan
from components.training.run.objective_mixture import require_tokens
from components.training.run.step_reads import check_reading
from components.training.run.worker_input import Work

STAGE = "pretrain"
TIMED_FIGURES = (
    *("training_seconds", "checkpoint_stall_seconds", "data_stall_share"),
    *("warm_up_seconds", "validation_seconds"),
)
XZ_IN_TRAINING = "xz_bits_per_byte_in_training"
HELD_OUT = ("validation_bits_per_byte", "validation_nats_per_label")  # of a decoder, and of another kind


def run(config: PretrainConfig, *, tokens: Path, tokenizer: Path, plan: Path, out: Path) -> Manifest:
    """Train, export, and drop the checkpoints. Raises DataError when the tokens are another tokenizer's."""
    started = time.time()
    inputs = [artifact.read(tokens), artifact.read(tokenizer), artifact.read(plan)]
    planned = read_plan(plan)
    check_inputs(inputs[0], inputs[1], planned, config.faults.minimum_workers)
    check_objectives(config, planned, tokenizer)
    check_reading(config, tokens, planned.sequence_length)
    located = check_initial(config, inputs[1], planned)
    if planned.initial is not None:  # where a checkpoint lies is no part of what the run is
        config = config.model_copy(update={"init_from": planned.initial.digest})
    settings = read_settings()
    key = digest_of([config.digest, code_digest(Path(__file__)), [each.digest for each in inputs]])
    run_path = (settings.state / "checkpoints" / key).resolve()
    run_path.mkdir(parents=True, exist_ok=True)
    events = Events(STAGE)
    work = Work(
        config=located,
        plan=planned,
        began_at=started,
        tokens=tokens.resolve(),
        tokenizer=tokenizer.resolve(),
        run=run_path,
        training_ends_at=Budget.read(plan, STAGE).keep(planned.finish_seconds).ends_at,
    )
    with ThreadPoolExecutor(max_workers=2) as pool:
        driver = pool.submit(_run_workers)
        with cluster.connect():
            events.note(f"Ray joined after {time.time() - started:.1f} s")
            run_workers = driver.result()
            compressed = pool.submit(xz_bytes_of_documents, tokens)
            figures = run_workers(work, settings, STAGE)
        worked = figures["training_seconds"] + figures["validation_seconds"]
        events.metric("startup_seconds", max(0.0, time.time() - started - worked))
        documents = compressed.result()
    xz_bits = compressed_bits_per_byte(documents, figures.pop("validation_indices"))
    with artifact.create(out, stage=STAGE, config=config, inputs=inputs, code=Path(__file__)) as draft:
        _fill(draft, [run_path / "export", tokenizer], figures)
        draft.run, draft.statistics = split_figures(figures, planned, xz_bits)
        if sampled := figures.pop("validation_indices_in_training"):  # the documents of validation.csv
            draft.statistics[XZ_IN_TRAINING] = compressed_bits_per_byte(documents, sampled)
    measured = (*HELD_OUT, "xz_bits_per_byte")
    events.metrics({name: draft.statistics[name] for name in measured if draft.statistics.get(name) is not None})
    shutil.rmtree(run_path)
    assert draft.manifest is not None
    return draft.manifest


def check_inputs(tokens: Manifest, tokenizer: Manifest, plan: Plan, minimum_workers: int | None = None) -> None:
    """Raise DataError when tokens, tokenizer and plan do not belong together."""
    wanted = tokens.statistics["tokenizer_digest"]
    if wanted != tokenizer.digest:
        raise DataError(
            f"tokens were made with tokenizer {wanted}, found tokenizer {tokenizer.digest}; run tokenize again"
        )
    vocabulary_size = int(tokens.statistics["vocabulary_size"])
    if vocabulary_size > plan.shape.vocabulary_size:
        raise DataError(
            f"tokens need {vocabulary_size} embeddings, the plan has {plan.shape.vocabulary_size}; run plan again"
        )
    windows = (int(tokens.statistics["train_tokens"]) - 1) // plan.sequence_length
    if windows < 1:
        raise DataError(
            f"{tokens.statistics['train_tokens']} training tokens are not one window of plan.sequence_length "
            f"{plan.sequence_length}; add documents or shorten it"
        )
    for size in range(minimum_workers or plan.num_workers, plan.num_workers + 1):
        if plan.batch_samples % size:
            raise DataError(f"plan.batch_samples {plan.batch_samples} cannot be shared by {size} workers evenly")


def check_initial(config: PretrainConfig, tokenizer: Manifest, plan: Plan) -> PretrainConfig:
    """The config with an absolute `init_from`. Raises DataError when the tokenizer, the plan and the checkpoint that is
    configured do not belong together; every byte of the checkpoint is read for this."""
    adopted = tokenizer.statistics.get(INITIAL)
    again = "run `overnight cycle`, which adopts the tokenizer of pretrain.init_from"
    if config.init_from is None:
        if adopted:
            raise DataError(f"the tokenizer is that of a {adopted['model_type']}, pretrain.init_from is null; {again}")
        return config
    if not adopted or plan.initial is None:
        raise DataError(f"pretrain.init_from is {config.init_from}, the tokenizer was not adopted from it; {again}")
    directory = checkpoint_directory(config.init_from)
    checkpoint_digest = digest_of_checkpoint(directory)
    for what, digest in (("the tokenizer", adopted["digest"]), ("the plan", plan.initial.digest)):
        if digest != checkpoint_digest:
            raise DataError(f"{config.init_from} has digest {checkpoint_digest}, {what} was made for {digest}; {again}")
    return config.model_copy(update={"init_from": str(directory.resolve())})


def check_objectives(config: PretrainConfig, plan: Plan, tokenizer: Path) -> None:
    """Raise ConfigError for what the kind of model cannot be asked, DataError for what the tokenizer cannot say."""
    if reason := objection(config, plan.shape.architecture):
        raise ConfigError(reason)
    require_tokens(config.objectives, tokenizer)


def xz_bytes_of_documents(tokens: Path) -> tuple[list[int], list[int]]:
    """What `xz -9` makes of each held-out document alone, and its bytes, in the order of the token files.

    In a thread: the compressor works outside the interpreter's lock while the workers import and compile.
    """
    order = pl.read_parquet(tokens / "validation.documents.parquet", columns=["id"])
    texts = pl.read_parquet(tokens / "validation.parquet", columns=["id", "text"])
    documents = [text.encode() for text in order.join(texts, on="id", how="left", maintain_order="left")["text"]]
    compressed = [len(lzma.compress(each, format=lzma.FORMAT_XZ, preset=9)) for each in documents]
    return compressed, [len(each) for each in documents]


def compressed_bits_per_byte(documents: tuple[list[int], list[int]], sampled: Sequence[int]) -> float:
    """What `xz -9` needs for some of the held-out documents, of what it makes of each and their bytes."""
    xz_bytes, num_bytes = documents
    return 8 * sum(xz_bytes[index] for index in sampled) / sum(num_bytes[index] for index in sampled)


def split_figures(
    figures: dict[str, Any], plan: Plan, xz_bits_per_byte: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was timed, and what follows from inputs, code, seed and decisions."""
    timed = {name: figures[name] for name in TIMED_FIGURES}
    timed["tokens_per_second"] = figures["tokens"] / max(1e-9, figures["training_seconds"])
    timed["compiled"] = figures["compiled"]
    statistics = {
        "parameters": plan.shape.parameters,
        "tokens": figures["tokens"],
        "steps": figures["steps"],
        **{name: figures[name] for name in HELD_OUT if name in figures},
        "validation_bytes": figures["validation_bytes"],
        "xz_bits_per_byte": xz_bits_per_byte,
        "sources": figures["sources"],
        # plan.fixed of a replay, key for key
        "decided": {
            "size": {"layers": plan.shape.layers, "width": plan.shape.width},
            "steps": figures["steps"],
            "decisions": figures["decisions"],
            "skipped": figures["skipped"],
            "precision": plan.precision,
            "compiled": plan.compiled,
            "accelerators": plan.accelerators,
            "micro_batch_samples": figures["micro_batch_samples"],
            "validate_every_steps": plan.validate_every_steps,
        },
    }
    return timed, statistics


def _fill(draft: artifact.Draft, folders: Sequence[Path], figures: dict[str, Any]) -> None:
    """Copy what the model consists of, and say how many rows its tables have."""
    for source in (path for folder in folders for path in artifact.files(folder, "*")):
        shutil.copyfile(source, draft.path / source.name)
    draft.rows |= figures.pop("rows")
    draft.rows["spikes.jsonl"] = figures.pop("spikes")


def _run_workers() -> Callable[[Work, Settings, str], dict[str, Any]]:
    """The driver of Ray Train. Called in a thread: the 2 s that it imports for pass while Ray is joined."""
    from components.training.run import workers  # noqa: PLC0415 - see above

    return workers.run_workers


if __name__ == "__main__":
    main(STAGE, PretrainConfig, run)
