"""Bits per byte of held-out documents, each read alone from <|endoftext|> on, and what xz -9 and counts make of each.

A document longer than the context is read in windows that overlap by half, so that every token is predicted once, from
at least half a context where the document has it. Its end is a prediction too and counts; its byte does not exist, so
nothing flatters the figure.
"""

import lzma
import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.evaluation.config import LikelihoodConfig
from components.evaluation.measures.ngram import NgramModel
from components.inference.engine import Engine, Prediction
from components.tokens.encoding.special import END_OF_TEXT_ID
from components.training.engine.batches.strides import strided_windows

UNNAMABLE = r"[^\w.+-]+"  # metrics are named suite/metric, without spaces


def predictions(
    engine: Engine, documents: Sequence[Sequence[int]], end_of_text: int = END_OF_TEXT_ID
) -> list[Prediction]:
    """What the engine expects of each document and of its end, given its T tokens without <|endoftext|>: T + 1 each."""
    sequences: list[Sequence[int]] = []
    owners: list[tuple[int, int]] = []
    for index, document in enumerate(documents):
        tokens = [end_of_text, *document, end_of_text]
        for start, scored, end in strided_windows(len(tokens) - 1, engine.context_tokens):
            sequences.append(tokens[start : end + 1])
            owners.append((index, scored - start))
    parts: list[list[Prediction]] = [[] for _ in documents]
    for (index, scored), prediction in zip(owners, engine.predict(sequences), strict=True):
        new = Prediction(log_probs=prediction.log_probs[scored:], top_log_probs=prediction.top_log_probs[scored:])
        parts[index].append(new)
    return [
        Prediction(
            log_probs=np.concatenate([each.log_probs for each in part]),
            top_log_probs=np.concatenate([each.top_log_probs for each in part]),
        )
        for part in parts
    ]


def bits_per_byte(log_probs: Iterable[NDArray[np.floating]], num_bytes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bits per byte of each document, shape (documents,), given the natural logs of its tokens' probabilities."""
    nats = np.array([-each.sum(dtype=np.float64) for each in log_probs])
    return nats / math.log(2) / num_bytes


def ngram_bits_per_byte(
    model: NgramModel,
    documents: Sequence[Sequence[int]],
    num_bytes: NDArray[np.float64],
    end_of_text: int = END_OF_TEXT_ID,
) -> NDArray[np.float64]:
    """What an n-gram model needs for the same predictions."""
    return bits_per_byte((model.log_probs([end_of_text, *each, end_of_text]) for each in documents), num_bytes)


def unigram_bits_per_byte(
    counts: NDArray[np.int64],
    documents: Sequence[Sequence[int]],
    num_bytes: NDArray[np.float64],
    end_of_text: int = END_OF_TEXT_ID,
) -> NDArray[np.float64]:
    """What a model that knows only how often each token occurs needs: the state before pretraining.

    `counts` of the training tokens, shape (vocabulary,), each plus one (Laplace).
    """
    bits = -np.log2((counts + 1) / (counts + 1).sum())
    return np.array([bits[[*document, end_of_text]].sum() for document in documents]) / num_bytes


def xz_bits_per_byte(texts: Sequence[str], num_bytes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bits per byte of `xz -9`, one text at a time, shape (documents,)."""
    sizes = [len(lzma.compress(text.encode(), preset=9, check=lzma.CHECK_CRC64)) for text in texts]
    return 8 * np.array(sizes, dtype=np.float64) / num_bytes


def slices(
    documents: pl.DataFrame, num_bytes: NDArray[np.float64], config: LikelihoodConfig
) -> dict[str, NDArray[np.int64]]:
    """Rows of the documents (columns language, source) by language, by source and by length, under the name of each
    slice; those of fewer than `min_slice_documents` are left out."""
    edges = config.length_edges_bytes
    between = [f"{low}_to_{high}" for low, high in pairwise(edges)]
    lengths = [f"below_{edges[0]}", *between, f"from_{edges[-1]}"]
    columns = {
        "language": documents["language"].fill_null("unknown").to_list(),
        "source": documents["source"].fill_null("unknown").to_list(),
        "bytes": [lengths[index] for index in np.searchsorted(edges, num_bytes, side="right")],
    }
    by_name: dict[str, NDArray[np.int64]] = {}
    for kind, values in columns.items():
        for value in sorted(set(values)):
            rows = np.flatnonzero(np.array(values) == value)
            if len(rows) >= config.min_slice_documents:
                by_name[f"{kind}_{re.sub(UNNAMABLE, '_', value)}"] = rows
    return by_name
