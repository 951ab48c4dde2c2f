"""When a run read a document: exactly, from the order of samples, without running anything.

Reads   <split>.documents.parquet and <split>.offsets.npy of data/tokens, plan.json, and the manifest of models/base
Covers: the document's tokens, the windows that hold any of them, and each step and epoch that read one of those.
Not covered: tokens that a window rearranged for infilling lost at its end; what a step made of them.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.core.lineage import Held, require
from components.tokens.order import places_of_samples
from components.tokens.store import SPLITS, Split


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


def windows_of(tokens: TokenRange, sequence_length: int) -> range:
    """The windows that hold a token of the document, as context or as target: window w is the tokens from w * T to
    (w + 1) * T, both included, so neighbours share one. Tokens behind the last whole window are in none."""
    num_windows = (tokens.num_tokens - 1) // sequence_length
    first = max(0, -(-tokens.start // sequence_length) - 1)
    return range(first, min(num_windows, (tokens.end - 1) // sequence_length + 1))


def reads(tokens: TokenRange, base: Held, plan: Held) -> Reads:
    """Every read of a training document in the run that made `base`."""
    planned = plan.json("plan.json")
    length, batch = int(planned["sequence_length"]), int(planned["batch_samples"])
    num_steps, seed = int(base.manifest.statistics["steps"]), int(base.manifest.config["seed"])
    windows = windows_of(tokens, length)
    num_windows = (tokens.num_tokens - 1) // length
    places, read = places_of_samples(np.arange(windows.start, windows.stop), num_windows, seed, num_steps * batch)
    return Reads(
        first_window=windows.start,
        last_window=windows.stop - 1,
        num_steps=num_steps,
        windows=read,
        steps=places // batch,
        epochs=places // num_windows,
    )
