"""What happens when the loss or the gradient jumps."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.core.config import StepConfig


class SpikesConfig(StepConfig):
    """A step whose loss or gradient norm lies far above those of the steps before it."""

    policy: Literal["warn", "skip", "stop"] = Field(
        default="warn",
        description="warn: record it and go on; skip: pass over its batches before the update; stop: end the run. All "
        "record the batch and its documents by loss in spikes.jsonl",
    )
    threshold: float = Field(
        default=6.0,
        gt=0,
        description="robust z-score of the loss, or of the gradient norm's logarithm, above which a step is a spike: "
        "at 6 a loss 1.3 nats above the median, or 14 times its norm; ordinary losses pass 4 once in 10,000 steps",
    )
    window_steps: int = Field(default=128, ge=8, description="steps before that it is compared with")
    warmup_steps: int = Field(default=100, ge=8, description="steps at the start of a run that are none: losses fall")
    rewind_batches: int = Field(
        default=0,
        ge=0,
        description="with skip: batches before the spike that are passed over too, from a checkpoint before them. PaLM "
        "went back about 100 steps (Chowdhery et al. 2022, arXiv:2204.02311, section 5.1)",
    )
    skip_batches: int = Field(
        default=1,
        ge=1,
        description="with skip: batches passed over in all, from the first one on; PaLM took 200 to 500",
    )
    max_skips: int = Field(default=10, ge=1, description="with skip: a further spike ends the run")
    top_documents: int = Field(default=16, ge=1, description="documents of a spike that are recorded, by loss")

    @model_validator(mode="after")
    def _covers_the_spike(self) -> Self:
        if self.skip_batches <= self.rewind_batches:
            raise ValueError(
                f"skip_batches {self.skip_batches} from {self.rewind_batches} before a spike leave it in; needed more"
            )
        return self
