"""What the suite `tokens` judges: one row per document of the token files, read back as training will read them.

Covers: offsets, ids, the end of each document, near duplicates across the splits.  Not covered: whether the tokens
decode to the text, which the tokenizer's own checks say.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.tokens.special import END_OF_TEXT_ID
from components.tokens.store import Split, TokenStore


def split_statistics(
    documents: pl.DataFrame, tokens: NDArray[np.uint16], offsets: NDArray[np.int64], *, is_validation: bool
) -> pl.DataFrame:
    """id, path, cluster, tokens, offsets_match, largest_id, ends, bytes_per_token, validation_weight by document.

    documents  D rows of <split>.documents.parquet; tokens (T,) and offsets (D + 1,) as the store has them. Null where
    the offsets leave nothing to look at.
    """
    lengths = np.diff(offsets)
    last = max(0, len(tokens) - 1)
    starts, ends = np.clip(offsets[:-1], 0, last), np.clip(offsets[1:] - 1, 0, last)
    usable = pl.Series(lengths > 0)
    largest = np.maximum.reduceat(tokens, starts) if len(starts) and len(tokens) else np.zeros(len(starts), np.int64)
    final = tokens[ends] if len(tokens) else np.zeros(len(ends), np.int64)
    return documents.select("id", "path", "cluster", "bytes", "tokens").select(
        *("id", "path", "cluster", "tokens"),
        offsets_match=(pl.Series(lengths) == pl.col("tokens")) & usable,
        largest_id=pl.when(usable).then(pl.Series(largest.astype(np.int64))),
        ends=pl.when(usable).then(pl.Series(final == END_OF_TEXT_ID)),
        bytes_per_token=pl.when(pl.col("tokens") > 0).then(pl.col("bytes") / pl.col("tokens")),
        validation_weight=pl.lit(float(is_validation)),
    )


def token_statistics(described: Mapping[Split, pl.DataFrame], directory: Path) -> pl.DataFrame:
    """split_statistics of both splits below each other, and in_both_splits: the document's cluster lies in two."""
    frames = []
    for split, documents in described.items():
        store = TokenStore(directory, split)
        frames.append(split_statistics(documents, store.tokens, store.offsets, is_validation=split == "validation"))
    return pl.concat(frames).with_columns(in_both_splits=pl.col("validation_weight").n_unique().over("cluster") > 1)
