"""What pretraining asks of the model."""

from typing import Self

from pydantic import Field, model_validator

from components.core.config import StepConfig
from components.training.engine.model.shape import Kind


class Infill(StepConfig):
    """Fill in the middle, cut between characters."""

    rate: float = Field(default=0.3, ge=0, le=1, description="chance that a piece of a document becomes one")
    suffix_first: float = Field(default=0.5, ge=0, le=1, description="share of them that give the suffix first")


class Spans(StepConfig):
    """Denoising of spans anywhere in a piece."""

    rate: float = Field(default=0.0, ge=0, le=1, description="chance that a piece is denoised so")
    noise: float = Field(gt=0, lt=0.9, description="share of its tokens that is taken out")
    span_tokens: float = Field(ge=1, description="mean length of a span")


class Tail(StepConfig):
    """Denoising of one span at the end of a piece: a prefix language model."""

    rate: float = Field(default=0.0, ge=0, le=1, description="chance that a piece is denoised so")
    noise: float = Field(default=0.25, gt=0, le=0.45, description="mean share that is taken out, uniform to its double")


class Masked(StepConfig):
    """Masked language modelling."""

    rate: float = Field(default=0.0, ge=0, le=1, description="1 for an encoder, which has no other objective; else 0")
    noise: float = Field(default=0.3, gt=0, lt=1, description="share of the tokens that is asked for")


class ObjectivesConfig(StepConfig):
    """A mixture by piece of a document; what the rates leave of 1 is the next token."""

    isolate_documents: bool = Field(
        default=True, description="documents that share a window do not attend to each other (decoders; others: always)"
    )
    infill: Infill = Field(default_factory=Infill, description="decoders")
    denoise_r: Spans = Field(
        default_factory=lambda: Spans(noise=0.15, span_tokens=3.0), description="UL2's R; decoders, encoder-decoders"
    )
    denoise_s: Tail = Field(default_factory=Tail, description="UL2's S; decoders, encoder-decoders")
    denoise_x: Spans = Field(
        default_factory=lambda: Spans(noise=0.5, span_tokens=32.0), description="UL2's X; decoders, encoder-decoders"
    )
    masked: Masked = Field(default_factory=Masked, description="encoders")

    @property
    def rates(self) -> dict[str, float]:
        """The rate of each objective by its name, the next token's last."""
        names = ("infill", "denoise_r", "denoise_s", "denoise_x", "masked")
        rates = {name: float(getattr(self, name).rate) for name in names}
        return {**rates, "next_token": 1 - sum(rates.values())}

    @model_validator(mode="after")
    def _leaves_something_or_nothing(self) -> Self:
        if self.rates["next_token"] < -1e-9:
            listing = ", ".join(f"{name} {rate:g}" for name, rate in self.rates.items() if rate > 0)
            raise ValueError(f"the rates ({listing}) add up to {1 - self.rates['next_token']:g}; at most 1")
        return self

    def refusal(self, kind: Kind) -> str | None:
        """Why a kind of model cannot be asked this, in one line; None when it can."""
        allowed = {
            "decoder": ("infill", "denoise_r", "denoise_s", "denoise_x", "next_token"),
            "encoder": ("masked",),
            "encoder-decoder": ("denoise_r", "denoise_s", "denoise_x"),
        }[kind]
        objectives = [name for name, rate in self.rates.items() if rate > 1e-9 and name not in allowed]
        if not objectives:
            return None
        hint = {
            "decoder": "set masked.rate to 0",
            "encoder": "set masked.rate to 1 and the others to 0",
            "encoder-decoder": "set infill.rate to 0 and let denoise_r, denoise_s and denoise_x add up to 1",
        }[kind]
        return f"pretrain.objectives asks an {kind} for {' and '.join(objectives)}; {hint}".replace(
            "an decoder", "a decoder"
        )
