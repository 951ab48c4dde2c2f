"""Teach the base model to answer: conversations packed into rows, beside pretraining windows that keep what it knew.

Reads   models/base, data/instructions, data/tokens (for replay and the guard), plan.json
Writes  models/sft: a Hugging Face directory, history.csv, instructions.parquet (what it learned from), contract.json
        (how they fare by the suite `conversations`), and adapter/ where adapters were tuned
Covers: loss on the assistant's turns and their ends alone; decoders, and encoder-decoders, whose encoder reads what is
before an answer; full tuning, some layers, or adapters (sft.tune); loss on held-out functions before and after; fixed
steps or the plan's seconds, start-up included; going on after a kill; several workers (sft.num_workers); a model that
has lost more than sft.guard allows is not kept: the base is passed on, and the statistics say why. An encoder becomes a
classifier of texts instead, where sft.classify says of which, and models/sft is its directory.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from transformers import PreTrainedModel

from components.alignment.classification.classifier import save_classifier, task_of, train_classifier
from components.alignment.config import ClassifyConfig, SftConfig
from components.alignment.damage import Abilities, Guard
from components.alignment.examples.chat import Conversation, conversation_tokens
from components.alignment.examples.example_contracts import instruction_statistics
from components.alignment.examples.exchanges import PackedExchanges, answer_positions, exchanges_of, two_sided
from components.alignment.examples.instruction import TABLE, Instruction, read_instructions, to_table
from components.alignment.examples.lengths import fitting
from components.alignment.examples.packing import PackedRows, Rows, order_of
from components.alignment.objectives import tuning
from components.alignment.objectives.anchored_loss import loss_of
from components.alignment.objectives.engine_tuning import Batches, Tuned, tune
from components.alignment.objectives.replay import Windows
from components.alignment.objectives.tuned_weights import ADAPTERS, open_model, save_adapters, with_adapters
from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import digest_of, read_settings
from components.core.errors import DataError
from components.core.events import Events
from components.core.graph.closure import code_digest
from components.core.step import main
from components.data.contracts.contract import Contract
from components.deadline.budget import Budget
from components.tokens.encoding.codec import TextCodec
from components.tokens.encoding.special import SpecialTokens
from components.training.config import read_plan
from components.training.engine.batches.batch import IGNORED
from components.training.engine.model.loss import mean_nats
from components.training.engine.model.shape import RECURRENT, kind_of
from components.training.parameters.objectives import ObjectivesConfig

STAGE = "sft"
SAVE_SECONDS = 3.0
ADAPTER = "adapter"


Train = Callable[[PreTrainedModel, tuning.Steps], Tuned]
Lesson = tuple[Instruction, Conversation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """Instructions with their conversations, to learn from and held out, and how many were too long for a row."""

    learned: list[Lesson]
    heldout: list[Lesson]
    too_long: int

    @property
    def conversations(self) -> list[Conversation]:
        """Those that are learned."""
        return [encoded for _, encoded in self.learned]

    @property
    def heldout_rows(self) -> list[tuning.Row]:
        """Those that are held out, to be measured."""
        return [row_of(encoded) for _, encoded in self.heldout]

    def statistics(self, special: SpecialTokens) -> pl.DataFrame:
        """What the contract judges: a row for each, learned or held out."""
        instructions, conversations = zip(*self.learned, *self.heldout, strict=True)
        return instruction_statistics(instructions, conversations, special)


def encode(instruction: Instruction, codec: TextCodec) -> Conversation:
    """The conversation as token ids."""
    messages = [(each.role, codec.encode(each.content)) for each in instruction.messages]
    ids, said = conversation_tokens(messages, special=codec.special)
    return Conversation(ids=np.array(ids, dtype=np.int32), said=np.array(said), source=instruction.source)


def row_of(conversation: Conversation) -> tuning.Row:
    """input_ids and labels, each of shape (n + 1,); IGNORED where the assistant says nothing."""
    pairs = zip(conversation.ids.tolist(), conversation.said.tolist(), strict=True)
    return {"input_ids": conversation.ids.tolist(), "labels": [each if said else IGNORED for each, said in pairs]}


def read_lessons(config: SftConfig, directory: Path, codec: TextCodec) -> Lessons:
    """What fits into a row. Raises DataError when there is nothing to learn, or when too many do not fit."""
    every = [(each, encode(each, codec)) for each in read_instructions(directory, ["tuning", "heldout"])]
    lengths = [encoded.positions for _, encoded in every]
    kept = fitting(lengths, config.row_tokens, config.max_too_long, where=str(directory), bound="sft.row_tokens")
    learned = [every[each] for each in kept if every[each][0].use == "tuning"]
    if not learned:
        raise DataError(
            f"{directory}: found no instruction to learn from within {config.row_tokens} tokens, needed one at least; "
            "raise sft.row_tokens or ask for more in instructions"
        )
    heldout = [every[each] for each in kept if every[each][0].use == "heldout"]
    return Lessons(learned=learned, heldout=heldout, too_long=len(every) - len(kept))


def rows_of(
    config: SftConfig,
    conversations: Sequence[Conversation],
    weights: dict[str, float],
    codec: TextCodec,
    architecture: str = "llama",
) -> Rows:
    """Packed conversations. Where a state runs from token to token each has a row of its own."""
    length, pad = config.row_tokens, codec.special.filler
    if kind_of(architecture) == "decoder":
        order = order_of([each.source for each in conversations], weights, config.seed)
        return PackedRows(conversations, order, length, pad, alone=architecture in RECURRENT)
    exchanges = [each for conversation in conversations for each in exchanges_of(conversation)]
    order = order_of([each.source for each in exchanges], weights, config.seed)
    return PackedExchanges(exchanges, order, length, answer_positions(exchanges, length), pad)


def batches_of(
    config: SftConfig,
    conversations: Sequence[Conversation],
    weights: dict[str, float],
    tokens: Path,
    codec: TextCodec,
    architecture: str = "llama",
    denoising: ObjectivesConfig | None = None,
) -> Batches:
    """What every step reads: packed conversations, and pretraining windows for replay."""
    replayed = min(config.batch_rows - 1, round(config.replay.share * config.batch_rows))
    windows = (
        Windows(
            tokens,
            codec.directory,
            split="train",
            length=config.row_tokens,
            infill_rate=config.replay.infill_rate if codec.special.fim_middle is not None else 0.0,
            seed=config.seed,
            denoising=denoising,
        )
        if replayed
        else None
    )
    return Batches(
        conversations=rows_of(config, conversations, weights, codec, architecture),
        windows=windows,
        batch_rows=config.batch_rows,
        replayed=replayed,
        anchored=config.replay.anchor > 0,
    )


def denoising_of(base: Path, manifest: Manifest) -> ObjectivesConfig | None:
    """What pretraining asked of an encoder-decoder; None of a decoder."""
    if kind_of(tuning.architecture_of(base)) == "decoder":
        return None
    return ObjectivesConfig.model_validate(manifest.config["objectives"])


def read_batches(config: SftConfig, base: Path, instructions: Path, tokens: Path, weights: dict[str, float]) -> Batches:
    """What every step of the stage reads, of its inputs alone: the same in each worker."""
    codec = TextCodec(base)
    lessons = read_lessons(config, instructions, codec)
    denoising = denoising_of(base, artifact.read(base))
    return batches_of(config, lessons.conversations, weights, tokens, codec, tuning.architecture_of(base), denoising)


def heldout_loss(model: PreTrainedModel, lessons: Lessons, config: SftConfig, pad: int) -> float | None:
    """Mean nats a token of the held-out answers; None without any."""
    if not lessons.heldout:
        return None
    if not model.config.is_encoder_decoder:
        return tuning.mean_loss(model, lessons.heldout_rows, config.batch_rows)
    exchanges = [each for _, conversation in lessons.heldout for each in exchanges_of(conversation)]
    room = (config.row_tokens, answer_positions(exchanges, config.row_tokens))
    return mean_nats(model, (two_sided([[each]], *room, pad) for each in exchanges))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The model after tuning, what it could before and after, and what is said of the run."""

    model: PreTrainedModel
    tuned: Tuned
    before: Abilities
    after: Abilities
    figures: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where the artifacts lie that the stage reads."""

    base: Path
    instructions: Path
    tokens: Path
    plan: Path


def checkpoints_of(config: SftConfig, inputs: Sequence[str]) -> Path:
    """Where a run keeps its checkpoints until its artifact is complete: below a key of config, code and the digests of
    what it reads."""
    key = digest_of([config.digest, code_digest(Path(__file__)), [*inputs]])
    checkpoints = (read_settings().state / "checkpoints" / key).resolve()
    checkpoints.mkdir(parents=True, exist_ok=True)
    return checkpoints


def classify(config: SftConfig, labels: ClassifyConfig, base: Path, plan: Path, out: Path) -> Manifest:
    """Make the base, an encoder, a classifier. It learns no instruction: TABLE has no row."""
    events, budget = Events(STAGE), Budget.read(plan, STAGE)
    inputs = [artifact.read(path) for path in (base, plan)]
    tuning.require_encoder(base)
    task = task_of(config, labels, TextCodec(base))
    events.note(f"{len(task.learned.rows)} texts to learn from, {len(task.heldout.rows)} held out")
    checkpoints = checkpoints_of(config, [*(each.digest for each in inputs), *task.read.digests.values()])
    with artifact.create(out, stage=STAGE, config=config, inputs=inputs, code=Path(__file__)) as draft:
        with tuning.own_cores():
            model, tuned, figures = train_classifier(config, base, task, budget, checkpoints, events)
        save_classifier(model, base, draft.path)
        draft.rows["history.csv"] = tuned.write_history(draft.path / "history.csv")
        to_table([]).drop("answer", "examples", "history", "preamble").write_parquet(draft.path / TABLE)
        draft.rows[TABLE] = 0
        draft.statistics = {"tune": config.tune, "kept": "tuned", **figures}
        draft.run = {**budget.record(), "training_seconds": tuned.seconds}
    shutil.rmtree(checkpoints)
    assert draft.manifest is not None
    return draft.manifest


def run(config: SftConfig, *, base: Path, instructions: Path, tokens: Path, plan: Path, out: Path) -> Manifest:
    """Fine-tune the base model; see the module."""
    if config.classify is not None:
        return classify(config, config.classify, base, plan, out)
    events = Events(STAGE)
    budget = Budget.read(plan, STAGE)
    paths = Paths(base=base, instructions=instructions, tokens=tokens, plan=plan)
    inputs = [artifact.read(path) for path in (base, instructions, tokens, plan)]
    architecture, denoising = tuning.require_answers(base), denoising_of(base, inputs[0])
    codec = TextCodec(base)
    contract = Contract("conversations", config.contract, events, {"max_tokens": config.row_tokens + 1})
    lessons = read_lessons(config, instructions, codec)
    verdict = contract.require(lessons.statistics(codec.special), where=instructions)
    events.note(f"{len(lessons.learned)} instructions to learn from, {len(lessons.heldout)} held out")
    weights = {name: float(each) for name, each in inputs[1].statistics["weights"].items()}
    batches = batches_of(config, lessons.conversations, weights, tokens, codec, architecture, denoising)
    checkpoints = checkpoints_of(config, [each.digest for each in inputs])
    guard = Guard(config.guard, tokens, base, length=config.row_tokens, seed=config.seed, denoising=denoising)
    with artifact.create(out, stage=STAGE, config=config, inputs=inputs, code=Path(__file__)) as draft:
        train = _trainer(config, batches, checkpoints, events, weights, paths)
        with tuning.own_cores() if config.num_workers == 1 else nullcontext():  # workers have cores of their own
            result = _tune(config, base, lessons, batches, guard, budget, train, events, draft)
        objection = guard.objection(result.before, result.after)
        if objection:
            events.note(f"the base is passed on, the tuned model is not kept: {objection}")
            tuning.pass_on(base, draft.path)
        else:
            tuning.save_model(result.model, base, draft.path)
        draft.rows["history.csv"] = result.tuned.write_history(draft.path / "history.csv")
        learned = to_table(each for each, _ in lessons.learned)
        learned.drop("answer", "examples", "history", "preamble").write_parquet(draft.path / TABLE, compression="zstd")
        draft.rows[TABLE] = learned.height
        contract.write_report(verdict, draft.path)
        draft.statistics = {
            "tune": config.tune,
            "learned": learned.height,
            "too_long": lessons.too_long,
            "replayed_share": batches.replayed / batches.batch_rows,
            **result.figures,
            **guard.record(result.before, result.after),
            "kept": "base" if objection else "tuned",
            **({"objection": objection} if objection else {}),
        }
        draft.run = {**budget.record(), "training_seconds": result.tuned.seconds}
    shutil.rmtree(checkpoints)
    assert draft.manifest is not None
    return draft.manifest


def _trainer(
    config: SftConfig,
    batches: Batches,
    checkpoints: Path,
    events: Events,
    weights: dict[str, float],
    paths: Paths,
) -> Train:
    """How a model is trained: in this process, or by workers on Ray Train."""

    def train(model: PreTrainedModel, steps: tuning.Steps) -> Tuned:
        left = steps.budget.seconds_left
        compiled = left is not None and left >= config.compile_from_seconds
        if config.num_workers == 1:
            loss = loss_of(config, model, paths.base) if batches.replayed else None
            return tune(model, batches, config, steps, checkpoints, events, compiled=compiled, loss=loss)
        from components.alignment.objectives import ray_tuning  # noqa: PLC0415 - ray.train takes 2 s; it imports this

        work = ray_tuning.TuningWork(
            config=config,
            base=paths.base.resolve(),
            instructions=paths.instructions.resolve(),
            tokens=paths.tokens.resolve(),
            weights=weights,
            run=checkpoints,
            training_ends_at=steps.budget.ends_at,
            where=read_plan(paths.plan).device,
            compiled=compiled,
        )
        return ray_tuning.tune_together(model, work, steps)

    return train


def _tune(
    config: SftConfig,
    base: Path,
    lessons: Lessons,
    batches: Batches,
    guard: Guard,
    budget: Budget,
    train: Train,
    events: Events,
    draft: artifact.Draft,
) -> Result:
    """Measure, train, measure again."""
    model = open_model(config, base)
    measuring = time.monotonic()
    before = guard.measure(model)
    loss_before = heldout_loss(model, lessons, config, batches.conversations.pad)
    measuring = time.monotonic() - measuring
    wrapped = with_adapters(model, config) if config.tune in ADAPTERS else None
    steps = tuning.plan_steps(config, batches.steps_of_epoch, budget.keep(1.3 * measuring + SAVE_SECONDS))
    tuned = train(model, steps)
    if wrapped is not None:
        save_adapters(wrapped, draft.path / ADAPTER)
        model = wrapped.merge_and_unload()
    after = guard.measure(model)
    figures: dict[str, Any] = {
        "steps": tuned.steps,
        "tokens": tuned.tokens,
        "padding_share": batches.conversations.padding_share(tuned.steps * (batches.batch_rows - batches.replayed)),
        "decided": steps.decided(),
    }
    if loss_before is not None:
        figures["heldout_loss_before"] = loss_before
        figures["heldout_loss_after"] = heldout_loss(model, lessons, config, batches.conversations.pad)
        events.metric("heldout_loss", loss_before, 0)
        events.metric("heldout_loss", figures["heldout_loss_after"], tuned.steps)
    return Result(model=model, tuned=tuned, before=before, after=after, figures=figures)


if __name__ == "__main__":
    main(STAGE, SftConfig, run)
