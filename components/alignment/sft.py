"""Teach the base model to answer: a function's signature and docstring in, its body out, in the chat form.

Reads   models/base, the training split's functions (data/clean, data/tokens), plan.json
Writes  models/sft: a Hugging Face directory, history.csv, instructions.parquet (which functions it learned from), and
        contract.json, how the pairs fare by the suite `instructions`; pairs that fail it are not learned from at all
Covers: loss on the answer's tokens alone; the loss on held-out functions before and after; fixed steps or the plan's
seconds, start-up included.
Not covered: instructions from elsewhere, mixing in raw documents, several turns.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from datasets import Dataset
from transformers import PreTrainedModel
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer

from components.alignment.config import SftConfig
from components.alignment.examples.chat import answer_tokens, prompt_tokens
from components.alignment.examples.example_contracts import instruction_statistics
from components.alignment.instructions import Instruction, read_instructions
from components.alignment.objectives import tuning
from components.core import artifact
from components.core.artifact import Manifest
from components.core.errors import DataError
from components.core.events import Events
from components.core.step import main
from components.data.contracts.contract import Contract
from components.deadline.budget import Budget
from components.tokens.encoding.codec import TextCodec

STAGE = "sft"
SAVE_SECONDS = 3.0
COLUMNS = {
    "tokens": "num_tokens",
    "loss": "loss",
    "learning_rate": "learning_rate",
    "token_accuracy": "mean_token_accuracy",
}


def encode(instruction: Instruction, codec: TextCodec) -> tuning.Row:
    """input_ids and labels of one pair, each of shape (T,); -100 where the prompt is."""
    prompt = prompt_tokens(codec.encode(instruction.prompt), special=codec.special)
    answer = answer_tokens(codec.encode(instruction.answer), special=codec.special)
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def read_pairs(
    config: SftConfig, source: Path, tokens: Path, codec: TextCodec
) -> tuple[dict[str, list[Instruction]], dict[str, list[tuning.Row]]]:
    """Functions and their tokens, to learn from (sft) and held out (heldout); each fits into `max_tokens`.

    Raises DataError when there is none of either.
    """
    kept: dict[str, list[Instruction]] = {"tuning": [], "heldout": []}
    rows: dict[str, list[tuning.Row]] = {"tuning": [], "heldout": []}
    limits = {"tuning": config.max_pairs, "heldout": config.num_heldout_pairs}
    for instruction in read_instructions(source, tokens, ["tuning", "heldout"]):
        use = instruction.use
        if len(rows[use]) < limits[use] and len((row := encode(instruction, codec))["input_ids"]) <= config.max_tokens:
            rows[use].append(row)
            kept[use].append(instruction)
        if all(len(rows[each]) == limit for each, limit in limits.items()):
            break
    for name, use_rows in rows.items():
        if not use_rows:
            raise DataError(
                f"{source}: found no function with a docstring for {name} within {config.max_tokens} tokens, needed one"
                f" at least; raise sft.max_tokens or add documents"
            )
    return kept, rows


def fine_tune(
    model: PreTrainedModel,
    rows: Sequence[tuning.Row],
    config: SftConfig,
    base: Path,
    steps: tuning.Steps,
    events: Events,
) -> tuning.Reporter:
    """Train the model in place; the figures by step."""
    reporter = tuning.Reporter(events, steps, COLUMNS)
    with tuning.scratch_directory() as directory:
        trainer = SFTTrainer(
            model=model,
            args=TrlConfig(
                **tuning.shared_arguments(config, steps, directory),
                max_length=config.max_tokens,
                dataset_kwargs={"skip_prepare_dataset": True},  # rows are encoded already, labels included
                train_sampling_strategy="group_by_length",
            ),
            train_dataset=Dataset.from_list(list(rows)),
            processing_class=tuning.load_tokenizer(base),
            callbacks=[reporter],
            optimizers=tuning.optimizer_and_rate(model, config.learning_rate, steps),
        )
        tuning.train(trainer, steps)
    return reporter


def run(config: SftConfig, *, base: Path, source: Path, tokens: Path, plan: Path, out: Path) -> Manifest:
    """Fine-tune the base model; see the module."""
    events = Events(STAGE)
    budget = Budget.read(plan, STAGE)
    inputs = [artifact.read(path) for path in (base, source, tokens, plan)]
    codec = TextCodec(base)
    contract = Contract("instructions", config.contract, events, {"max_tokens": config.max_tokens})
    instructions, encoded = read_pairs(config, source, tokens, codec)
    rows, heldout = encoded["tuning"], encoded["heldout"]
    pairs = instruction_statistics(
        [*instructions["tuning"], *instructions["heldout"]], [*rows, *heldout], codec.special
    )
    verdict = contract.require(pairs, where=source)
    events.note(f"{len(rows)} pairs to learn from, {len(heldout)} held out")
    model = tuning.load_model(base)
    with tuning.own_cores():
        measuring = time.monotonic()
        before = tuning.mean_loss(model, heldout, config.batch_size)
        measuring = time.monotonic() - measuring
        events.metric("heldout_loss", before, 0)
        steps = tuning.plan_steps(config, len(rows), budget.keep(1.2 * measuring + SAVE_SECONDS))
        training = time.monotonic()
        reporter = fine_tune(model, rows, config, base, steps, events)
        training = time.monotonic() - training
        after = tuning.mean_loss(model, heldout, config.batch_size)
    events.metric("heldout_loss", after, reporter.last_step)
    with artifact.create(out, stage=STAGE, config=config, inputs=inputs, code=Path(__file__)) as draft:
        tuning.save_model(model, base, draft.path)
        draft.rows["history.csv"] = reporter.write_history(draft.path / "history.csv")
        learned = pl.DataFrame(
            {name: [getattr(each, name) for each in instructions["tuning"]] for name in ("document", "name")}
        )
        learned.write_parquet(draft.path / "instructions.parquet", compression="zstd")
        draft.rows["instructions.parquet"] = learned.height
        contract.write_report(verdict, draft.path)
        draft.statistics = {
            "pairs": len(rows),
            "heldout_pairs": len(heldout),
            "answer_tokens": sum(label != -100 for row in rows for label in row["labels"]),
            "steps": reporter.last_step,
            "heldout_loss_before": before,
            "heldout_loss_after": after,
            "decided": steps.decided(),
        }
        draft.run = {**budget.record(), "training_seconds": training}
    assert draft.manifest is not None
    return draft.manifest


if __name__ == "__main__":
    main(STAGE, SftConfig, run)
