"""What the benches of inference read: a small model that has learned a little, and real text that it has not seen.

The model is of the kind and size that the smoke profile makes (Qwen3, 4 layers of 128, vocabulary 4,096, context 256),
trained by the engine for a minute or less: one that knows nothing chooses among equals, and shows no fault of a cache.
"""

import shutil
from pathlib import Path

import polars as pl

from benchmarks.training import corpus
from components.tokens.encoding.codec import TextCodec
from components.training.config import PlanConfig, PretrainConfig
from components.training.engine.batches.batch import next_token_batch
from components.training.engine.model.architectures import build
from components.training.engine.optimizer import Rates
from components.training.engine.trainer import Recipe, Trainer, World
from components.training.plan import shape_for

CORPUS_BYTES = 6_000_000
STEPS = 80
END_OF_TEXT_ID = 0
VOCABULARY_SIZE = 4096


def prepare(folder: Path) -> None:
    """Write model/ (with its tokenizer) and what it learned from."""
    corpus.prepare(folder, CORPUS_BYTES)
    config = PlanConfig()
    recipe = Recipe(
        precision="bfloat16",
        compiled=False,
        micro_batch_samples=corpus.BATCH_SAMPLES,
        rates=Rates(**PretrainConfig().rates.model_dump()),
        report_every_steps=1,
        validate_every_steps=1,
        checkpoint_seconds=1e9,
    )
    model = build(shape_for(config, config.ladder[0], VOCABULARY_SIZE), 0, END_OF_TEXT_ID)
    trainer = Trainer(model, recipe, World(), print)
    for step, windows in enumerate(corpus.batches(folder, STEPS, 0)):
        trainer.accumulate(step, next_token_batch(windows))
        trainer.update(step, min(1.0, 2 * (1 - step / STEPS)))
    model.float().save_pretrained(folder / "model")
    for path in (folder / "tokenizer").glob("*token*"):
        shutil.copy(path, folder / "model" / path.name)


def held_out(folder: Path) -> list[list[int]]:
    """Token ids of each document that the model has not seen."""
    texts = pl.read_parquet(folder / "tokens" / "validation.parquet", columns=["text"])["text"].to_list()
    return TextCodec(folder / "tokenizer").encode_batch(texts)
