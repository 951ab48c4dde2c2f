"""Begin a model as a bigram model: embeddings fitted to how often one token follows another in the whole corpus.

While the blocks of a new decoder are still the identity, its logits are the output embedding times the normalised input
embedding: a factorised bigram model. That model alone costs no more to fit than as many steps of training, but sees
every pair of the corpus in each of its steps, where a run of minutes reads a part of the corpus once. Measured on 10M
tokens of Python, vocabulary 4,096, width 128, after 1.02M tokens of training: 1.887 bits per byte without, 1.836 with.
Covers: decoders with an input and an output embedding of their own. Not covered: tied embeddings, and vocabularies
whose pairs do not fit a dense table. Plain torch.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

# Of the dense table of pairs, 16 bytes each while they are counted and 4 here: 1.3 GB.
MAXIMUM_VOCABULARY = 8192
# Rows of logits at a time: 8 MB at 4,096 tokens, which stay in the last cache.
CHUNK_ROWS = 512
# A token's followers count as if this many more had been seen, spread as the corpus's tokens are.
PRIOR = 4.0
EMBEDDING_RATE = 0.2
OUTPUT_RATE = 0.04  # at a width of 128; falls with the root of the width
RATES_WIDTH = 128
BETAS = (0.8, 0.95)
EPSILON = 1e-8


@torch.no_grad()
def fit(
    embedding: Tensor, output: Tensor, pairs: NDArray[np.int64], *, steps: int, dtype: torch.dtype, kept: int = 0
) -> float:
    """Set both embeddings, shape (V, D), to those of a bigram model; nats per token of the model before the last step.

    pairs   shape (W, W), W <= V: how often column follows row; tokens of W and above keep their start
    steps   updates by Adam on all pairs, at a constant rate and in the last half along a line to nothing
    dtype   of the products; their sums and the updates are in float32
    kept    first features of the input embedding that stay as they are, but for the norm of their row
    """
    device, tokens = embedding.device, len(pairs)
    counts = torch.from_numpy(pairs.astype(np.float32)).to(device)
    of_row, of_column = counts.sum(1), counts.sum(0)
    total = of_row.sum()
    follows = (of_column + 1) / (total + tokens)
    counts.addcmul_(torch.tensor(PRIOR, device=device), follows.expand_as(counts))
    wanted, weight = counts.div_(counts.sum(1, keepdim=True)), of_row / total
    inputs, outputs = embedding[:tokens].float(), output[:tokens].float()
    peaks = EMBEDDING_RATE, OUTPUT_RATE * (RATES_WIDTH / embedding.shape[1]) ** 0.5
    adam = torch.optim.Adam(
        [{"params": [each], "lr": peak} for each, peak in zip((inputs, outputs), peaks, strict=True)],
        betas=BETAS,
        eps=EPSILON,
    )
    nats = torch.zeros((), device=device)
    for step in range(steps):
        nats = _gradients(inputs, outputs, wanted, weight, dtype)
        assert inputs.grad is not None
        inputs.grad[:, :kept] = 0.0
        for group, peak in zip(adam.param_groups, peaks, strict=True):
            group["lr"] = peak * min(1.0, 2 * (steps - step) / steps)
        adam.step()
    embedding[:tokens] = functional.rms_norm(inputs, inputs.shape[1:])
    output[:tokens] = outputs
    return float(nats)


def _gradients(inputs: Tensor, outputs: Tensor, wanted: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Set both gradients of the mean cross-entropy, and return it."""
    scale = inputs.square().mean(1, keepdim=True).rsqrt()
    normalised, rounded = inputs * scale, outputs.to(dtype)
    of_normalised, of_outputs = torch.empty_like(inputs), torch.zeros_like(outputs)
    nats = torch.zeros((), device=inputs.device)
    for start in range(0, len(inputs), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        chunk = normalised[rows].to(dtype)
        logs = functional.log_softmax((chunk @ rounded.mT).float(), dim=1)
        nats -= torch.dot((wanted[rows] * logs).sum(1), weight[rows])
        of_logits = logs.exp_().sub_(wanted[rows]).mul_(weight[rows, None]).to(dtype)
        of_normalised[rows] = (of_logits @ rounded).float()
        of_outputs += (of_logits.mT @ chunk).float()
    along = (of_normalised * normalised).mean(1, keepdim=True)
    inputs.grad = (of_normalised - normalised * along) * scale
    outputs.grad = of_outputs
    return nats
