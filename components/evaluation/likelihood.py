"""Bits per byte of held-out documents, each read alone from <|endoftext|> on, and what xz -9 makes of each.

A document longer than the context is read in windows that overlap by half, so that every token is predicted once, from
at least half a context where the document has it. Its end is a prediction too and counts; its byte does not exist, so
nothing flatters the figure.
"""

import lzma
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from components.inference.engine import Engine
from components.tokens.special import END_OF_TEXT_ID


def windows(num_predictions: int, context: int) -> Iterator[tuple[int, int, int]]:
    """(first input, first scored prediction, end) of each window; every prediction is scored in exactly one."""
    end = min(context, num_predictions)
    yield 0, 0, end
    while end < num_predictions:
        scored = end
        end = min(end + context // 2, num_predictions)
        yield end - context, scored, end


def bits_per_byte(
    engine: Engine,
    documents: Sequence[Sequence[int]],
    num_bytes: NDArray[np.float64],
    end_of_text: int = END_OF_TEXT_ID,
) -> NDArray[np.float64]:
    """Bits per byte of each document, shape (documents,), given its tokens without <|endoftext|>, and its bytes."""
    sequences: list[Sequence[int]] = []
    owners: list[tuple[int, int]] = []
    for index, document in enumerate(documents):
        tokens = [end_of_text, *document, end_of_text]
        for start, scored, end in windows(len(tokens) - 1, engine.context_tokens):
            sequences.append(tokens[start : end + 1])
            owners.append((index, scored - start))
    nats = np.zeros(len(documents))
    for (index, scored), log_probs in zip(owners, engine.score(sequences), strict=True):
        nats[index] -= float(log_probs[scored:].sum(dtype=np.float64))
    return nats / math.log(2) / num_bytes


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
