"""Parameters of the stages that teach the base model to answer and to prefer. Light to import."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from components.core.config import StepConfig
from components.inference.bounds import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    NewTokens,
    NumSamples,
    Seed,
    TopP,
)

Precision = Literal["float32", "bfloat16"]
PRECISION = (
    "arithmetic of the layers; weights and optimizer stay in float32. On two cores with AVX512-BF16 and 1.3M parameters"
    " float32 took 16 s of CPU where bfloat16 took 26: the casts cost more than they save"
)
MAX_STEPS = "steps in fixed mode; in deadline mode the plan's seconds decide"
DECISIONS = (
    "(step, last step) of each decision that a clock took, for fixed mode; `overnight cycle --replay` fills it in"
)
Decisions = tuple[tuple[int, int], ...]


Share = Annotated[float, Field(ge=0, le=1)]
MOSTLY = "share of pairs that must pass a rule, by rule; all where it is not named"


class InstructionsContract(StepConfig):
    """The bounds of the suite instructions.json."""

    mostly: dict[str, Share] = Field(default_factory=lambda: {"answer_in_prompt": 0.99}, description=MOSTLY)


class PreferencesContract(StepConfig):
    """The bounds of the suite preferences.json."""

    min_pairs: int = Field(0, ge=0, description="fewest pairs; align passes the model on when they are few")
    max_answer_characters: int = Field(10_000, ge=1, description="longest answer of a pair")
    min_verifier_share: float = Field(0.0, ge=0, le=1, description="smallest share of pairs that the verifier decided")
    mostly: dict[str, Share] = Field(default_factory=dict, description=MOSTLY)


class SftConfig(StepConfig):
    """How the base model learns to complete a signature and a docstring with a body."""

    max_pairs: int = Field(1200, ge=1, description="instruction pairs to train on at most")
    num_heldout_pairs: int = Field(
        48, ge=1, description="pairs that are never trained on, for the loss before and after"
    )
    max_tokens: int = Field(256, ge=16, description="pairs that are longer as chat are left out, not cut")
    batch_size: int = Field(16, ge=1, description="pairs in one step")
    max_steps: int = Field(120, ge=1, description=MAX_STEPS)
    decisions: Decisions = Field((), description=DECISIONS)
    max_epochs: float = Field(4.0, gt=0, description="passes over the pairs at most, in both modes")
    learning_rate: float = Field(5e-4, gt=0, description="peak; falls linearly to zero after the warmup")
    warmup_fraction: float = Field(0.05, ge=0, lt=1, description="share of the steps, or of the time, that warms up")
    precision: Precision = Field("float32", description=PRECISION)
    seed: int = Field(0, ge=0, description="order of the pairs")
    contract: InstructionsContract = Field(
        default_factory=InstructionsContract, description="what the pairs must satisfy before they are learned"
    )


class PreferencesConfig(StepConfig):
    """How candidates are sampled, verified, judged and paired."""

    max_prompts: int = Field(160, ge=1, description="prompts at most; those with runnable examples come first")
    num_samples: NumSamples = Field(2, description="candidates per prompt at each temperature")
    temperatures: tuple[float, ...] = Field((0.3, 0.8), min_length=1, description="sampling temperatures")
    checkpoints: tuple[Literal["tuned", "base"], ...] = Field(
        ("tuned",), min_length=1, description="models that answer: the fine-tuned one, the one before it, or both"
    )
    top_p: TopP = Field(0.95, description="nucleus that is sampled from")
    max_prompt_tokens: int = Field(96, ge=8, description="prompts that are longer are left out")
    max_new_tokens: NewTokens = Field(80, description="tokens of a candidate at most")
    chunk_prompts: int = Field(
        32, ge=1, description="prompts sampled, verified and judged before the clock is read again"
    )
    max_chunks: int | None = Field(
        None, ge=1, description="chunks at most; all when null; `overnight cycle --replay` fills in what the clock left"
    )
    min_score_gap: float = Field(
        0.05, ge=0, description="difference of judge scores from which on two equally verified candidates make a pair"
    )
    max_pairs_per_prompt: int = Field(1, ge=1, description="pairs of one prompt at most; no answer is in two of them")
    require_compiling: bool = Field(
        True, description="an answer that does not compile is never the better one of a pair"
    )
    timeout_seconds: float = Field(2.0, gt=0, description="limit of one candidate's run")
    memory_bytes: int = Field(268_435_456, ge=33_554_432, description="address space of one candidate's run")
    seed: Seed = Field(0, description="seed of the sampling")
    contract: PreferencesContract = Field(
        default_factory=PreferencesContract, description="what the pairs of answers must satisfy"
    )

    @field_validator("temperatures")
    @classmethod
    def _check_temperatures(cls, temperatures: tuple[float, ...]) -> tuple[float, ...]:
        samples = [each for each in temperatures if each != 0]
        if any(not LOWEST_TEMPERATURE <= each <= HIGHEST_TEMPERATURE for each in samples):
            raise ValueError(f"temperatures are 0 or from {LOWEST_TEMPERATURE:g} to {HIGHEST_TEMPERATURE:g}")
        if len(set(temperatures)) < len(temperatures):
            raise ValueError("temperatures are different numbers")
        return temperatures

    @field_validator("checkpoints")
    @classmethod
    def _check_checkpoints(cls, checkpoints: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(checkpoints)) < len(checkpoints):
            raise ValueError("checkpoints are different models")
        return checkpoints


class AlignConfig(StepConfig):
    """How the model learns from pairs (direct preference optimization)."""

    beta: float = Field(0.1, gt=0, description="strength of the pull back to the model before alignment")
    min_pairs: int = Field(16, ge=2, description="with fewer pairs to train on the model is passed on as it is")
    heldout_fraction: float = Field(0.2, gt=0, lt=1, description="share of the pairs that only measure")
    max_tokens: int = Field(256, ge=16, description="pairs with a longer answer are left out, not cut")
    max_too_long: Share = Field(
        0.05, description="share of the pairs that may be left out for their length; more stops the stage"
    )
    batch_size: int = Field(8, ge=1, description="pairs in one step")
    max_steps: int = Field(60, ge=1, description=MAX_STEPS)
    decisions: Decisions = Field((), description=DECISIONS)
    max_epochs: float = Field(4.0, gt=0, description="passes over the pairs at most, in both modes")
    learning_rate: float = Field(5e-5, gt=0, description="peak; falls linearly to zero after the warmup")
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="share of the steps, or of the time, that warms up")
    precision: Precision = Field("float32", description=PRECISION)
    seed: int = Field(0, ge=0, description="order of the pairs")
