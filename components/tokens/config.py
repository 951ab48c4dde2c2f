"""Parameters of the stages that turn documents into tokens."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.core.config import StepConfig
from components.tokens.encoding.special import SPECIAL_TOKENS

NUM_BYTE_TOKENS = 256


class VocabularyConfig(StepConfig):
    """How the vocabulary is learned."""

    vocabulary_size: int = Field(
        4096,
        ge=NUM_BYTE_TOKENS + len(SPECIAL_TOKENS),
        le=65536,
        description="tokens, special ones and the 256 bytes included; at most what uint16 can number",
    )
    sample_bytes: int = Field(
        16_000_000,
        ge=100_000,
        description="bytes of text to learn from; each language of each source gives its share, in whole documents",
    )
    span_tokens: int = Field(
        0,
        ge=0,
        le=1000,
        description="special tokens that name the spans of pretrain.objectives.denoise; T5 has 100, others need none",
    )
    seed: int = Field(0, description="draws the sample")

    @model_validator(mode="after")
    def _holds_its_special_tokens(self) -> Self:
        needed = NUM_BYTE_TOKENS + len(SPECIAL_TOKENS) + self.span_tokens
        if self.vocabulary_size < needed:
            raise ValueError(
                f"vocabulary_size is {self.vocabulary_size}; needed at least {needed} for the bytes and the special "
                f"tokens ({self.span_tokens} of them span_tokens)"
            )
        return self


class TokensContract(StepConfig):
    """The bounds of the suite tokens.json."""

    min_bytes_per_token: float = Field(
        0.5, ge=0, description="fewest bytes of a document per token; 0.5 is one byte and <|endoftext|>"
    )
    max_bytes_per_token: float = Field(
        64.0, gt=0, description="most bytes of a document per token; above it is hardly code"
    )
    min_validation_share: float = Field(0.001, ge=0, le=1, description="smallest share of documents held out")
    max_validation_share: float = Field(0.5, ge=0, le=1, description="largest share of documents held out")
    mostly: dict[str, float] = Field(
        default_factory=dict, description="share of documents that must pass a rule, by rule; all where it is not named"
    )


class TokenizeConfig(StepConfig):
    """How documents are split and encoded."""

    validation_fraction: float = Field(
        0.04, gt=0, lt=1, description="expected share of the near-duplicate clusters that go to validation, whole"
    )
    chunk_bytes: int = Field(16_000_000, ge=1, description="bytes of text that are encoded in one parallel batch")
    shard_tokens: int = Field(
        134_217_728, ge=1, description="tokens of a shard; 2^27 are 268 MB where uint16 numbers the vocabulary"
    )
    engine: Literal["fastokens", "tokenizers"] = Field(
        "fastokens",
        description="what encodes; fastokens is about ten times faster, and tokenizers takes over if their ids differ",
    )
    verified_share: float = Field(
        0.002, ge=0, le=1, description="share of the bytes whose ids are compared with those of tokenizers"
    )
    repository_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the groups of related files of a package whose training documents stand one behind the "
        "other, imported files first, each below its path; the others, and at 0 all, stand alone",
    )
    repository_tokens: int = Field(
        16_384, ge=1, description="tokens of such a group at most: some windows; a larger document stands alone"
    )
    seed: int = Field(0, description="draws the validation clusters and the groups")
    contract: TokensContract = Field(default_factory=TokensContract, description="what the token files must satisfy")
