"""A checkpoint that pretraining goes on from (`pretrain.init_from`), as stages tell each other of it. Light."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

INITIAL: Final = "initial"
"""The statistic of a tokenizer, and of token files, that holds an Initial; absent where a model begins anew."""
SOURCE: Final = "source.json"
"""Beside the files of a checkpoint that was made from another file: its Source."""


class Source(BaseModel):
    """The file that a checkpoint was made from.

    licence         as an SPDX id where it is known, else as it is stated; None where neither the file nor its package
                    states one
    package         the distribution that the file came in, with its version; None for a file of no package
    quantization    how most of its weights were stored, as llama.cpp names it
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    sha256: str
    bytes: int = Field(ge=0)
    name: str | None
    licence: str | None
    package: str | None
    version: str | None
    quantization: str


class Initial(BaseModel):
    """A checkpoint as the planner needs to know it. `digest` is of its configuration, weights and tokenizer.

    total, active   parameters, as in components.training.engine.model.shape.Counts, before special tokens are added
    rows            of its input embedding, before special tokens are added
    known_tokens    ids that its own tokenizer uses: [0, known_tokens)
    vocabulary_size rows of the input embedding that the adopted tokenizer needs
    positions       what a longer context means for it: rotary positions can be scaled, learned ones cannot
    source          the file that it was made from; None where it is the directory that a person named
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    model_type: str
    context: int = Field(ge=1)
    layers: int = Field(ge=1)
    width: int = Field(ge=1)
    heads: int = Field(ge=1)
    key_value_heads: int = Field(ge=1)
    feed_forward: int = Field(ge=1)
    rope_theta: float
    positions: Literal["rotary", "scaled rotary", "learned"]
    tied: bool
    total: int
    active: int
    rows: int
    known_tokens: int
    vocabulary_size: int
    source: Source | None = None
