"""What the suite `tokens` judges: one row per document of the token files, read back as training will read them.

Covers: offsets, ids, the end of each document, that its tokens stand for all of its bytes, near duplicates across the
splits.  Not covered: whether they stand for the very bytes, which the comparison of two encoders says.
"""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.data.documents.document import cut
from components.tokens.encoding.special import END_OF_TEXT_ID
from components.tokens.shards.token_store import SPLITS, Tokens, TokenStore, documents_path

BLOCK_TOKENS = 16_000_000


def split_statistics(
    documents: pl.DataFrame,
    tokens: Tokens,
    offsets: NDArray[np.int64],
    token_bytes: NDArray[np.int64],
    *,
    is_validation: bool,
    end_of_text: int = END_OF_TEXT_ID,
    file_sep: int | None = None,
) -> pl.DataFrame:
    """id, path, cluster, tokens, offsets_match, largest_id, ends, bytes_per_token, uncovered_bytes, validation_weight
    by document.

    documents  D rows of <split>.documents.parquet; tokens (T,) and offsets (D + 1,) as the store has them; token_bytes
    (V,) as TextCodec.bytes_of_tokens; file_sep ends a training document that the next file of its package follows. Null
    where the offsets leave nothing to look at.
    """
    lengths = np.diff(offsets)
    last = max(0, len(tokens) - 1)
    starts, ends = np.clip(offsets[:-1], 0, last), np.clip(offsets[1:] - 1, 0, last)
    usable = pl.Series(lengths > 0)
    largest = np.maximum.reduceat(tokens, starts) if len(starts) and len(tokens) else np.zeros(len(starts), np.int64)
    final = tokens[ends] if len(tokens) else np.zeros(len(ends), np.int64)
    sizes = token_bytes[np.minimum(tokens, len(token_bytes) - 1)]
    covered = np.add.reduceat(sizes, starts) if len(starts) and len(tokens) else np.zeros(len(starts), np.int64)
    return documents.select("id", "path", "cluster", "bytes", "encoded_bytes", "tokens").select(
        *("id", "path", "cluster", "tokens"),
        offsets_match=(pl.Series(lengths) == pl.col("tokens")) & usable,
        largest_id=pl.when(usable).then(pl.Series(largest.astype(np.int64))),
        ends=pl.when(usable).then(pl.Series((final == end_of_text) | ((final == file_sep) & (not is_validation)))),
        # A file of a package stands for its path, too.
        bytes_per_token=pl.when(pl.col("tokens") > 0).then(
            pl.max_horizontal("bytes", "encoded_bytes") / pl.col("tokens")
        ),
        uncovered_bytes=pl.when(usable).then(pl.col("encoded_bytes") - pl.Series(covered)),
        validation_weight=pl.lit(float(is_validation)),
    )


def token_statistics(
    directory: Path, token_bytes: NDArray[np.int64], end_of_text: int = END_OF_TEXT_ID, file_sep: int | None = None
) -> pl.DataFrame:
    """split_statistics of all documents of both splits, and in_both_splits: the document's cluster lies in two.

    Tokens are read a block of documents at a time.
    """
    frames = []
    for split in SPLITS:
        store = TokenStore(directory, split)
        documents = pl.read_parquet(documents_path(directory, split))
        offsets = np.clip(store.offsets, 0, store.num_tokens)
        for piece in cut(documents["tokens"], BLOCK_TOKENS):
            enclosing = offsets[piece.start : piece.stop + 1]
            tokens = store.read(int(enclosing.min()), int(enclosing.max()))
            here = store.offsets[piece.start : piece.stop + 1] - enclosing.min()
            frames.append(
                split_statistics(
                    documents[piece],
                    tokens,
                    here,
                    token_bytes,
                    is_validation=split == "validation",
                    end_of_text=end_of_text,
                    file_sep=file_sep,
                )
            )
    return pl.concat(frames).with_columns(in_both_splits=pl.col("validation_weight").n_unique().over("cluster") > 1)
