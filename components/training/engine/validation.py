"""Bits per byte of held-out documents, each read alone from <|endoftext|> on. Only torch and numpy.

A document longer than the context is read in windows that overlap by half: every token is predicted once, from at
least half a context where the document has it. The end of a document is a prediction too and counts; its byte does not
exist, so nothing flatters the figure.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers.modeling_utils import PreTrainedModel

from components.training.engine.batches.strides import strided_windows

BATCH_TOKENS = 4096  # what their products read stays in the cache: 16,384 took a third longer
LOGIT_ROWS = 1024  # bounds the memory of logits


@torch.no_grad()
def nats(
    model: PreTrainedModel,
    documents: Sequence[NDArray[np.uint16] | NDArray[np.uint32]],
    context: int,
    end_of_text: int,
    device: str,
) -> float:
    """Sum of -ln p over every token of the documents (their end included), in float64 over float32 logits."""
    pending: list[tuple[NDArray[np.int64], int, int]] = []
    for document in documents:
        tokens = np.concatenate([[end_of_text], document.astype(np.int64)])
        for start, scored, end in strided_windows(len(document), context):
            pending.append((tokens[start : end + 1], scored - start, end - start))
    pending.sort(key=lambda each: len(each[0]))  # stable: equal lengths share a batch, so little is padded
    total = 0.0
    rows = max(1, BATCH_TOKENS // context)
    for first in range(0, len(pending), rows):
        total += _batch_nats(model, pending[first : first + rows], end_of_text, device)
    return total


def _batch_nats(
    model: PreTrainedModel, batch: list[tuple[NDArray[np.int64], int, int]], pad: int, device: str
) -> float:
    """Right padding is harmless: attention is causal, and padded predictions are not scored."""
    width = max(len(tokens) for tokens, _, _ in batch)
    inputs = torch.full((len(batch), width), pad, dtype=torch.int64)
    scored = torch.zeros((len(batch), width - 1), dtype=torch.bool)
    for row, (tokens, start, end) in enumerate(batch):
        inputs[row, : len(tokens)] = torch.from_numpy(tokens)
        scored[row, start:end] = True
    inputs, scored = inputs.to(device), scored.to(device)
    hidden: Tensor = model.base_model(input_ids=inputs[:, :-1], use_cache=False).last_hidden_state
    predicted, wanted = hidden[scored], inputs[:, 1:][scored]
    total, output = 0.0, model.get_output_embeddings()
    for start in range(0, len(wanted), LOGIT_ROWS):
        logits = output(predicted[start : start + LOGIT_ROWS]).float()
        total += float(functional.cross_entropy(logits, wanted[start : start + LOGIT_ROWS], reduction="sum").double())
    return total


def bits_per_byte(total_nats: float, num_bytes: int) -> float:
    """Nats over documents as bits per byte of their UTF-8 text."""
    return total_nats / math.log(2) / num_bytes
