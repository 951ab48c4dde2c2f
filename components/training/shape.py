"""The sizes of a decoder-only model, and what they cost. Standard library only: planning imports no torch for this."""

from dataclasses import dataclass
from typing import Literal

Architecture = Literal["llama", "qwen3"]
FEED_FORWARD_RATIO = 8 / 3
FEED_FORWARD_MULTIPLE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model with grouped-query attention, rotary positions, RMSNorm and SwiGLU.

    `qwen3` is `llama` with RMSNorm on queries and keys. Heads are `width / heads` wide.
    """

    architecture: Architecture
    vocabulary_size: int
    context: int
    layers: int
    width: int
    heads: int
    key_value_heads: int
    feed_forward: int
    rope_theta: float
    tied: bool

    @property
    def head_width(self) -> int:
        """Features of one attention head."""
        return self.width // self.heads

    @property
    def matrix_parameters(self) -> int:
        """Parameters that a token is multiplied with: all but the input embedding (the output embedding included)."""
        key_value_width = self.key_value_heads * self.head_width
        attention = 2 * self.width * self.width + 2 * self.width * key_value_width
        return self.layers * (attention + 3 * self.width * self.feed_forward) + self.vocabulary_size * self.width

    @property
    def parameters(self) -> int:
        """Every trained number, counted once."""
        norms = self.layers * 2 * self.width + self.width
        if self.architecture == "qwen3":
            norms += self.layers * 2 * self.head_width
        return self.matrix_parameters + norms + (0 if self.tied else self.vocabulary_size * self.width)

    def training_flops_per_token(self, sequence_length: int) -> int:
        """Forward and backward: 6 per matrix parameter, and 12 * layers * width * T for attention scores and values.

        Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix B; the causal half is not subtracted.
        """
        return 6 * self.matrix_parameters + 12 * self.layers * self.width * sequence_length


def shape_of(
    *,
    architecture: Architecture,
    vocabulary_size: int,
    context: int,
    layers: int,
    width: int,
    head_width: int,
    queries_per_key_value: int,
    rope_theta: float,
    tied: bool,
) -> Shape:
    """A shape by its depth and width; the feed-forward is 8/3 wide, rounded down to a multiple of 32.

    Raises ValueError when the heads do not divide the width or the key-value heads do not divide the heads.
    """
    heads, rest = divmod(width, head_width)
    if rest or heads == 0:
        raise ValueError(f"width {width} is not a multiple of head_width {head_width}")
    key_value_heads = max(1, heads // queries_per_key_value)
    if heads % key_value_heads:
        raise ValueError(f"{heads} heads cannot share {key_value_heads} key-value heads evenly")
    feed_forward = int(width * FEED_FORWARD_RATIO) // FEED_FORWARD_MULTIPLE * FEED_FORWARD_MULTIPLE
    return Shape(
        architecture=architecture,
        vocabulary_size=vocabulary_size,
        context=context,
        layers=layers,
        width=width,
        heads=heads,
        key_value_heads=key_value_heads,
        feed_forward=max(FEED_FORWARD_MULTIPLE, feed_forward),
        rope_theta=rope_theta,
        tied=tied,
    )
