"""Begin a decoder with an induction head, so that it copies from its context from the first steps on.

An induction head (Olsson et al. 2022, arXiv:2209.11895) says what followed the last occurrence of a token. It needs two
blocks to work together: a head of the first that tells each position the token before it, and one of the second that
looks for positions whose token before is the present one. Training finds such a pair late, and runs of minutes may not
find it at all; written into the weights, it is there at once, and only what the head says has to be learned.
Measured on 16M tokens of Python, vocabulary 4,096, Qwen3 4 x 128, beside the bigram start, after 2.05M tokens of it:
1.326 bits per byte with, 1.631 without (one seed; docs/log.md).

How: `reserve` keeps some features of the residual stream free of the token's own embedding and holds one at a constant.
From the constant the first block's last head makes queries and keys that meet at a distance of one, through the fast
pairs of the rotary positions, and writes a projection of that token into the reserved features. The second block's last
head makes its query from the same projection of the present token and its key from the reserved features, in the slow
pairs, which hardly turn within the context.

Covers: llama, qwen3 and mixtral with two blocks or more. Not covered: tied embeddings, recurrent blocks, contexts so
long that too few pairs of the rotary positions are slow. Plain torch.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from components.training.engine.model.shape import Shape

ARCHITECTURES = ("llama", "qwen3", "mixtral")
CONSTANT = 0.265  # of the root of the width: 7 % of an embedding's energy
FAST_RADIANS = 1 / 8  # a pair that turns by so much or more from a token to the next tells neighbours apart
SLOW_RADIANS = math.pi / 2  # a pair that turns by less over the whole context tells none apart
MINIMUM_FAST_PAIRS, MINIMUM_FEATURES = 4, 16
# Scores of attention where a query meets its key: of the token before, of a token seen again.
SCORES = (32.0, 12.0)
PATTERN, MATCH, CONTENT = 4.0, 2.0, 0.3  # how strong the weights of each kind are beside what they began as
FLOOR = 1e-3  # of the largest variance of the embeddings: directions below are not stretched further


def features_of(shape: Shape) -> int:
    """Features of the residual stream that the head needs; 0 where it is not covered."""
    fast, slow = (int(mask.sum()) for mask in _pairs(shape))
    features = min(2 * slow, shape.width // 4) // 2 * 2
    covered = shape.architecture in ARCHITECTURES and not shape.tied and shape.layers > 1
    return features if covered and fast >= MINIMUM_FAST_PAIRS and features >= MINIMUM_FEATURES else 0


def reserve(embedding: Tensor, features: int) -> None:
    """Before the embeddings, shape (V, D), are fitted: the first features at zero, the next one at the constant."""
    embedding[:, :features] = 0.0
    embedding[:, features] = CONSTANT * embedding.shape[1] ** 0.5


@torch.no_grad()
def write(model: PreTrainedModel, shape: Shape, frequency: Tensor, seed: int) -> None:
    """Write the two heads into a new decoder whose embeddings were reserved, and fitted with that left as it was.

    frequency   (V,) how often each token occurs; its sum does not matter
    """
    generator = torch.Generator().manual_seed(seed)
    embedding = model.get_input_embeddings().weight.data
    features = features_of(shape)
    identity = _identity(embedding.float(), frequency / frequency.sum(), features, generator)
    constant = float(embedding[:, features].mean())
    blocks: Any = model.model.layers
    before, match = blocks[0].self_attn, blocks[1].self_attn
    fast, slow = _pairs(shape)
    _attend_before(before, shape, torch.nonzero(fast)[:, 0], features, constant)
    _last(before.v_proj, shape.head_width)[:features] = identity
    first = (shape.heads - 1) * shape.head_width
    before.o_proj.weight[:features, first : first + features] = torch.eye(features)
    _attend_match(match, shape, torch.nonzero(slow)[-features // 2 :, 0], identity)


def _pairs(shape: Shape) -> tuple[Tensor, Tensor]:
    """Masks of the fast and of the slow pairs of rotary positions, shape (head_width / 2,)."""
    radians = _radians(shape)
    return radians >= FAST_RADIANS, radians * shape.context <= SLOW_RADIANS


def _radians(shape: Shape) -> Tensor:
    """By how much each pair turns from a token to the next."""
    return shape.rope_theta ** (-torch.arange(0, shape.head_width, 2) / shape.head_width)


def _identity(embedding: Tensor, frequency: Tensor, features: int, generator: torch.Generator) -> Tensor:
    """A projection, shape (features, D), under which embeddings of different tokens are nearly orthogonal: their own
    part centred, whitened and turned at random; by the constant feature it takes the centre off."""
    own = embedding[:, features + 1 :]
    centre = frequency @ own
    centred = own - centre
    variances, directions = torch.linalg.eigh(centred.mT @ (centred * frequency[:, None]))
    whitening = (directions * variances.clamp_min(FLOOR * variances[-1]).rsqrt()) @ directions.mT
    turned = torch.linalg.qr(torch.randn(own.shape[1], features, generator=generator))[0].mT @ whitening
    offset = -(turned @ centre) / embedding[:, features].mean()
    projection = torch.cat([torch.zeros(features, features), offset[:, None], turned], dim=1)
    energy = (embedding @ projection.mT).square().mean(1)
    return projection / (frequency @ energy).sqrt()


def _last(projection: nn.Linear, head_width: int) -> Tensor:
    """Rows of the last head, shape (head_width, D), to be written to."""
    return projection.weight.data[-head_width:]


def _attend_before(attention: Any, shape: Shape, fast: Tensor, features: int, constant: float) -> None:
    """Of a key k = (1, 0) and a query (cos w, -sin w) in a pair that turns by w, the product at a distance of n is
    cos((n - 1) w)."""
    key, query = _quietened(attention, shape, features)
    turn = _radians(shape)[fast]
    gain = _gain(attention, shape, torch.cat([fast, fast + shape.head_width // 2]), SCORES[0])
    key[fast, features] = PATTERN
    # Without normalisation the score is the plain product of what the constant makes of both.
    strength = PATTERN if gain is None else gain / (len(fast) * PATTERN * constant**2)
    query[fast, features] = strength * turn.cos()
    query[fast + shape.head_width // 2, features] = -strength * turn.sin()


def _attend_match(attention: Any, shape: Shape, slow: Tensor, identity: Tensor) -> None:
    """The query is the token's own projection, the key that of the token before, which the reserved features hold."""
    features = len(identity)
    key, query = _quietened(attention, shape, features)
    places = torch.cat([slow, slow + shape.head_width // 2])
    gain = _gain(attention, shape, places, SCORES[1])
    key[places] = 0.0
    key[places, torch.arange(features)] = MATCH
    query[places] = identity * (MATCH if gain is None else gain / (features * MATCH))


def _quietened(attention: Any, shape: Shape, features: int) -> tuple[Tensor, Tensor]:
    """Rows of the last key and the last query head, with what they began as made small and the constant left out."""
    key, query = (_last(projection, shape.head_width) for projection in (attention.k_proj, attention.q_proj))
    shared = shape.heads // shape.key_value_heads * shape.head_width
    attention.q_proj.weight.data[-shared:, features] = 0.0
    for rows in (key, query):
        rows.mul_(CONTENT)
        rows[:, features] = 0.0
    return key, query


def _gain(attention: Any, shape: Shape, places: Tensor, score: float) -> float | None:
    """Set the norm of the queries so that a query that meets its key scores `score`; where there is none, what the
    product of both has to be."""
    if not hasattr(attention, "q_norm"):
        return score * math.sqrt(shape.head_width)
    attention.q_norm.weight.data[places] *= score / math.sqrt(shape.head_width)
    return None
