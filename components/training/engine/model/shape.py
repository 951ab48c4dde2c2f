"""The sizes of a model, and what they cost. Standard library only: planning imports no torch for this.

Architectures, each chosen by one line (`plan.architecture`), and what the counts below are made of:
    llama       decoder: grouped-query attention, rotary positions, RMSNorm, SwiGLU
    qwen3       llama with RMSNorm on queries and keys
    mixtral     llama whose feed-forward is `experts`, of which each token passes `experts_per_token`
    bamba       llama, three of four blocks with a Mamba2 mixer in the place of attention
    modernbert  encoder: reads both ways, every third block over the whole context, the others over 128 tokens
    t5          encoder-decoder: `layers` blocks on each side, relative positions
A model that continues a checkpoint (`pretrain.init_from`) has its checkpoint's counts instead, under its model_type.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

Architecture = Literal["llama", "qwen3", "mixtral", "bamba", "modernbert", "t5"]
Kind = Literal["decoder", "encoder", "encoder-decoder"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
KINDS: dict[str, Kind] = {"modernbert": "encoder", "t5": "encoder-decoder"}
# Their state runs through a whole window: transformers has no reset at the start of a piece without CUDA kernels.
RECURRENT = (
    *("bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "lfm2", "lfm2_moe", "mamba", "mamba2"),
    *("nemotron_h", "qwen3_next", "recurrent_gemma", "rwkv", "xlstm", "zamba", "zamba2"),
)

FEED_FORWARD_RATIO = 8 / 3
FEED_FORWARD_MULTIPLE = 32
# bamba: Mamba2 with one group, inner width twice the residual stream's (Dao and Gu 2024, arXiv:2405.21060); a block of
# attention in every four (Jamba, arXiv:2403.19887, has one in eight, and finds up to one in four no worse).
ATTENTION_EVERY = 4
MIXER_EXPANSION = 2
STATE_WIDTH = 64
CONVOLUTION_TOKENS = 4
# t5: buckets of relative positions of each side (Raffel et al. 2020, section 2.1)
RELATIVE_BUCKETS = 32
# modernbert: every third block attends to everything, the others to 128 tokens (Warner et al. 2024, arXiv:2412.13663)
GLOBAL_EVERY = 3
LOCAL_TOKENS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Parameters of a model.

    total   every trained number, counted once
    active  the matrices that a token is multiplied with: not the input embedding, not the experts that it does not pass
    """

    total: int
    active: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model by its sizes; heads are `width / heads` wide.

    experts, experts_per_token  0 for a model without experts
    balance                     weight of the loss that spreads tokens over experts
    counted                     of a checkpoint's own tensors; None for an architecture of ours, which is computed
    """

    architecture: str
    vocabulary_size: int
    context: int
    layers: int
    width: int
    heads: int
    key_value_heads: int
    feed_forward: int
    rope_theta: float
    tied: bool
    experts: int = 0
    experts_per_token: int = 0
    balance: float = 0.0
    counted: Counts | None = None

    @property
    def kind(self) -> Kind:
        """How its batches look."""
        return kind_of(self.architecture)

    @property
    def recurrent(self) -> bool:
        """Whether a state passes from token to token, which no mask keeps inside a document."""
        return self.architecture in RECURRENT

    @property
    def head_width(self) -> int:
        """Features of one attention head."""
        return self.width // self.heads

    @property
    def attention_layers(self) -> tuple[int, ...]:
        """Numbers of the blocks with attention; an encoder-decoder's are those of each side."""
        if self.architecture != "bamba":
            return tuple(range(self.layers))
        return tuple(range(ATTENTION_EVERY - 1, self.layers, ATTENTION_EVERY)) or (self.layers - 1,)

    @property
    def mixer_heads(self) -> int:
        """Heads of a Mamba2 mixer, as wide as those of attention."""
        return MIXER_EXPANSION * self.width // self.head_width

    @property
    def parameters(self) -> int:
        """Every trained number, counted once."""
        return self._counts().total

    @property
    def matrix_parameters(self) -> int:
        """Parameters that a token is multiplied with: all matrices but the input embedding and the experts that a
        token does not pass (the output embedding included)."""
        return self._counts().active

    def training_flops_per_token(self, sequence_length: int) -> int:
        """Forward and backward: 6 per matrix parameter, and 12 * width * T for scores and values of each attention.

        Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix B; the causal half is not subtracted. A Mamba2 mixer
        writes and reads its state: 2 * 3 * 2 * inner * state. A token of an encoder-decoder passes one side alone, so
        both sides are counted as if each read half of the tokens.
        """
        if self.architecture == "t5":
            return 3 * self.matrix_parameters + 9 * self.layers * self.width * sequence_length
        spans = [sequence_length] * len(self.attention_layers)
        if self.architecture == "modernbert":
            spans = [
                sequence_length if layer % GLOBAL_EVERY == 0 else min(LOCAL_TOKENS, sequence_length)
                for layer in range(self.layers)
            ]
        mixers = self.layers - len(self.attention_layers)
        states = 12 * mixers * MIXER_EXPANSION * self.width * STATE_WIDTH
        return 6 * self.matrix_parameters + 12 * self.width * sum(spans) + states

    def _counts(self) -> Counts:
        if self.counted is not None:
            return self.counted
        embedding = self.vocabulary_size * self.width
        matrices, vectors, idle = _COUNTED[self.architecture](self)
        total = matrices + idle + vectors + embedding * (1 if self.tied else 2)
        return Counts(total=total, active=matrices + embedding)


def kind_of(architecture: str) -> Kind:
    """How the batches of an architecture look; a decoder unless it is known for another."""
    return KINDS.get(architecture, "decoder")


def stand_in(shape: Shape) -> Shape:
    """A llama of a checkpoint's sizes, which the planner times in its place: it knows the shape and not the files."""
    return replace(shape, architecture="llama", counted=None)


def _attention(shape: Shape) -> int:
    return 2 * shape.width * (shape.width + shape.key_value_heads * shape.head_width)


def _feed_forward(shape: Shape) -> int:
    return 3 * shape.width * shape.feed_forward


def _llama(shape: Shape) -> tuple[int, int, int]:
    """Parameters of (matrices that a token passes, vectors, matrices that it does not), embeddings apart."""
    norms = shape.layers * 2 * shape.width + shape.width
    if shape.architecture == "qwen3":
        norms += shape.layers * 2 * shape.head_width
    return shape.layers * (_attention(shape) + _feed_forward(shape)), norms, 0


def _mixtral(shape: Shape) -> tuple[int, int, int]:
    passed = _attention(shape) + shape.experts * shape.width + shape.experts_per_token * _feed_forward(shape)
    idle = (shape.experts - shape.experts_per_token) * _feed_forward(shape)
    return shape.layers * passed, shape.layers * 2 * shape.width + shape.width, shape.layers * idle


def _bamba(shape: Shape) -> tuple[int, int, int]:
    inner = MIXER_EXPANSION * shape.width
    convolved = inner + 2 * STATE_WIDTH
    mixer = shape.width * (inner + convolved + shape.mixer_heads) + inner * shape.width
    mixer_vectors = convolved * (CONVOLUTION_TOKENS + 1) + 3 * shape.mixer_heads + inner
    attentions = len(shape.attention_layers)
    mixers = shape.layers - attentions
    matrices = attentions * _attention(shape) + mixers * mixer + shape.layers * _feed_forward(shape)
    return matrices, mixers * mixer_vectors + shape.layers * 2 * shape.width + shape.width, 0


def _modernbert(shape: Shape) -> tuple[int, int, int]:
    square = shape.width * shape.width
    matrices = shape.layers * (4 * square + _feed_forward(shape)) + square
    return matrices, (2 * shape.layers + 2) * shape.width, 0  # the first block has one norm; embeddings and head, too


def _t5(shape: Shape) -> tuple[int, int, int]:
    square = shape.width * shape.width
    matrices = shape.layers * (3 * 4 * square + 2 * _feed_forward(shape))
    return matrices, (5 * shape.layers + 2) * shape.width + 2 * RELATIVE_BUCKETS * shape.heads, 0


_COUNTED = {
    "llama": _llama,
    "qwen3": _llama,
    "mixtral": _mixtral,
    "bamba": _bamba,
    "modernbert": _modernbert,
    "t5": _t5,
}


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
    experts: int = 8,
    experts_per_token: int = 2,
    balance: float = 0.01,
) -> Shape:
    """A shape by its depth and width; the feed-forward is 8/3 wide, rounded down to a multiple of 32.

    Experts share that width among those that a token passes, so that a token costs what it costs in a model without.
    The last three count for mixtral alone; modernbert and t5 share no key-value heads.
    Raises ValueError when the heads do not divide the width, the key-value heads not the heads, or a token would pass
    more experts than there are.
    """
    heads, rest = divmod(width, head_width)
    if rest or heads == 0:
        raise ValueError(f"width {width} is not a multiple of head_width {head_width}")
    grouped = kind_of(architecture) == "decoder"
    key_value_heads = max(1, heads // queries_per_key_value) if grouped else heads
    if heads % key_value_heads:
        raise ValueError(f"{heads} heads cannot share {key_value_heads} key-value heads evenly")
    mixture = architecture == "mixtral"
    if mixture and experts_per_token > experts:
        raise ValueError(f"a token cannot pass {experts_per_token} of {experts} experts")
    inner = width * FEED_FORWARD_RATIO / (experts_per_token if mixture else 1)
    return Shape(
        architecture=architecture,
        vocabulary_size=vocabulary_size,
        context=context,
        layers=layers,
        width=width,
        heads=heads,
        key_value_heads=key_value_heads,
        feed_forward=max(FEED_FORWARD_MULTIPLE, int(inner) // FEED_FORWARD_MULTIPLE * FEED_FORWARD_MULTIPLE),
        rope_theta=rope_theta,
        tied=tied,
        experts=experts if mixture else 0,
        experts_per_token=experts_per_token if mixture else 0,
        balance=balance if mixture else 0.0,
    )
