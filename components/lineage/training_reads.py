"""When a run read a document: exactly, from the order of samples, without running anything.

Reads   <split>.documents.parquet, <split>.offsets.npy and <split>.sources.json of data/tokens, plan.json, and the
        manifest of models/base
Covers: the document's tokens, the windows that hold any of them, and each step and epoch that read one of those.
Not covered: tokens that a window rearranged for infilling lost at its end; what a step made of them.
"""

import json
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.lineage.chain import Held, require
from components.tokens.shards.token_store import SPLITS, Split, read_sources
from components.tokens.shards.windows import Windows
from components.training.engine.batches.batch import number_of_batch
from components.training.parameters.mixture import MixtureConfig
from components.training.run.step_reads import steps_of_batches, windows_of_run


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRange:
    """Where a document's tokens lie: [start, end) of its split, which has `num_tokens`; `document` is its number."""

    split: Split
    document: int
    start: int
    end: int
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """Windows [first, last] that hold the document, and for every read of one its window, step and epoch, in the order
    of the run; all of shape (reads,). `num_steps` is the length of the run."""

    first_window: int
    last_window: int
    num_steps: int
    windows: NDArray[np.int64]
    steps: NDArray[np.int64]
    epochs: NDArray[np.int64]


def token_range(tokens: Held, identity: str) -> TokenRange | None:
    """The tokens of a document, in whichever split it is; None when it is in neither."""
    for split in SPLITS:
        ids = pl.scan_parquet(require(tokens, f"{split}.documents.parquet")).select("id").with_row_index("row")
        rows = ids.filter(pl.col("id") == identity).collect()["row"]
        if len(rows):
            offsets = np.load(require(tokens, f"{split}.offsets.npy"), mmap_mode="r")
            start, end = map(int, offsets[int(rows[0]) : int(rows[0]) + 2])
            return TokenRange(split=split, document=int(rows[0]), start=start, end=end, num_tokens=int(offsets[-1]))
    return None


def windows_of(base: Held, plan: Held, tokens: Held, span: TokenRange) -> Windows:
    """The order in which the run that made `base` read the training tokens."""
    planned, decided = plan.json("plan.json"), base.manifest.statistics.get("decided", {})
    decisions = decided.get("decisions") or []
    return windows_of_run(
        read_sources(tokens.files.get(f"{span.split}.sources.json"), span.num_tokens),
        MixtureConfig.model_validate_json(json.dumps(base.manifest.config.get("mixture", {}))),
        sequence_length=int(planned["sequence_length"]),
        batch_samples=int(planned["batch_samples"]),
        seed=int(base.manifest.config["seed"]),
        decay_start_step=decisions[0][0] if decisions else None,
        skipped=decided.get("skipped", ()),
    )


def reads(span: TokenRange, base: Held, plan: Held, tokens: Held) -> Reads:
    """Every read of a training document in the run that made `base`."""
    batch = int(plan.json("plan.json")["batch_samples"])
    num_steps = int(base.manifest.statistics["steps"])
    skipped = base.manifest.statistics.get("decided", {}).get("skipped", [])
    windows = windows_of(base, plan, tokens, span)
    holding = windows.holding(span.start, span.end)
    num_places = (number_of_batch(num_steps - 1, skipped) + 1) * batch if num_steps else 0
    places = windows.places_of(np.arange(holding.start, holding.stop), num_places)
    steps, is_read = steps_of_batches(places // batch, skipped)
    read = windows.at(places[is_read])
    return Reads(
        first_window=holding.start,
        last_window=holding.stop - 1,
        num_steps=num_steps,
        windows=read.windows,
        steps=steps[is_read],
        epochs=read.epochs,
    )
