"""Who may attend to whom when several pieces of documents lie in one row. Only torch.

A row's pieces are told by their positions, which restart at 0 (components.training.engine.batches.batch). Decoder-only
models of transformers build the same causal mask themselves from position_ids (eager, sdpa, flex attention; flash
attention through `bounds_of`), so forward.py hands them positions; models that read both ways, and decoders that read
an encoder, need the masks below.
"""

import torch
from torch import Tensor


def piece_numbers(positions: Tensor) -> Tensor:
    """Which piece of its row each position belongs to, from 1; shape of positions, (B, T)."""
    return (positions == 0).cumsum(dim=-1)


def allowed(query_positions: Tensor, key_positions: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """True where a query may see a key: both of piece k of their row, and if causal no later key. (B, 1, T, S) bool.

    query_positions   (B, T)
    key_positions     (B, S), of the encoder that a decoder reads; the queries' own when absent
    A query whose piece has no keys (padding behind the last piece) sees all: an empty softmax would be NaN.
    """
    queries = piece_numbers(query_positions)
    keys = queries if key_positions is None else piece_numbers(key_positions)
    same = queries[:, :, None] == keys[:, None, :]
    if causal:
        length = queries.shape[1]
        same &= torch.ones(length, keys.shape[1], dtype=torch.bool, device=keys.device).tril()
    elif key_positions is not None:
        same |= ~same.any(dim=-1, keepdim=True)
    return same[:, None]


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a mask allows and the least finite number elsewhere: what eager attention adds to its scores."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def bounds_of(positions: Tensor) -> Tensor:
    """Where pieces begin when rows are laid end to end, and where all end: (pieces + 1,) int32, the cu_seqlens of flash
    attention. How many there are depends on the data, so a compiler cannot know this shape in advance."""
    starts = (positions.flatten() == 0).nonzero().flatten()
    return torch.cat([starts, starts.new_tensor([positions.numel()])]).int()
