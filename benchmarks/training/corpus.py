"""What all sides train on: installed Python, a vocabulary of 4,096, tokens of training and held-out documents."""

import json
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.harness import RUN
from benchmarks.tokens.tokenize import given
from components.core.events import Events
from components.tokens.config import TokenizeConfig
from components.tokens.shards.split import sample_of
from components.tokens.shards.token_store import TokenStore, documents_path
from components.tokens.tokenize import write_all

SEQUENCE_LENGTH = 256
BATCH_SAMPLES = 8
HELD_OUT_BYTES = 600_000


def prepare(folder: Path, corpus_bytes: int = given.CORPUS_BYTES) -> None:
    """Write clean/, tokenizer/ and tokens/ below a folder."""
    given.prepare(folder, corpus_bytes)
    (folder / "tokens").mkdir()
    write_all(
        TokenizeConfig(repository_share=0.0),
        folder / "clean",
        folder / "tokenizer",
        folder / "tokens",
        Events("tokenize"),
    )


def batches(folder: Path, steps: int, seed: int) -> NDArray[np.int64]:
    """Windows drawn uniformly, shape (steps, B, T + 1): what the peers train on, without an epoch's bookkeeping."""
    store = TokenStore(folder / "tokens", "train")
    starts = np.random.default_rng(seed).integers(0, store.num_tokens - SEQUENCE_LENGTH - 1, size=steps * BATCH_SAMPLES)
    rows = [store.read(int(start), int(start) + SEQUENCE_LENGTH + 1) for start in starts]
    return np.stack(rows).astype(np.int64).reshape(steps, BATCH_SAMPLES, SEQUENCE_LENGTH + 1)


def held_out(folder: Path) -> tuple[list[NDArray[np.uint16] | NDArray[np.uint32]], int]:
    """Documents that nobody trained on, the same for every side and seed, and their bytes."""
    store = TokenStore(folder / "tokens", "validation")
    num_bytes = pl.read_parquet(documents_path(folder / "tokens", "validation"), columns=["bytes"])["bytes"].to_numpy()
    chosen = sample_of(num_bytes, HELD_OUT_BYTES, 0)
    return [store.document(int(index)) for index in chosen], int(num_bytes[chosen].sum())


def run_number(folder: Path) -> int:
    """Which run of a side this is, from 0: the seed of what is learned."""
    return int(json.loads((folder / RUN).read_text(encoding="utf-8")))
