"""The ladder of small runs that a scaling law is fitted to, and what counts against a size beside its loss."""

from pydantic import Field

from components.core.config import StepConfig
from components.training.parameters.size import Size


class FitConfig(StepConfig):
    """`overnight plan --fit`. It does not run in a cycle: its result, a law, is an input of the plan."""

    sizes: tuple[Size, ...] = Field(
        (Size(layers=2, width=64), Size(layers=4, width=128), Size(layers=6, width=192)),
        min_length=2,
        description="sizes of the small runs, smallest first; each gets the same time",
    )
    lengths: tuple[float, ...] = Field(
        (0.25, 0.5, 1.0), min_length=2, description="tokens of the runs of one size, as shares of its longest, rising"
    )
    validation_bytes: int = Field(600_000, ge=1, description="held-out bytes that the runs are compared on")
    draws: int = Field(200, ge=50, description="laws drawn for the intervals")
    confidence: float = Field(0.9, gt=0, lt=1, description="of the intervals")


class EconomicsConfig(StepConfig):
    """What a model costs to make and to serve. No price enters a loss."""

    inference_tokens: float = Field(
        0.0, ge=0, description="tokens read and written over the model's life; 0: serving does not count"
    )
    price_per_hour: float | None = Field(
        None, ge=0, description="of one accelerator, or of the machine without one; the hardware table's when absent"
    )
    loss_tolerance: float = Field(
        0.01, ge=0, lt=1, description="with inference_tokens: the cheapest size within this share of the best loss"
    )
    serving_utilisation: float = Field(
        0.1, gt=0, le=1, description="share of the peak that serving reaches, over batch sizes and idle hours"
    )
