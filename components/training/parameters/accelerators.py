"""Faster ways to compute the same model on a GPU."""

from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from components.core.config import StepConfig

Accelerator = Literal["liger", "graphs", "float8"]


class AcceleratorsConfig(StepConfig):
    """What is used beside compilation, and what an unnamed one must show first."""

    use: Literal["auto"] | tuple[Accelerator, ...] = Field(
        default="auto",
        description="liger: Triton kernels of liger-kernel (llama, qwen3); graphs: CUDA graphs; float8: products in 8 "
        "bits; auto: those that pay here and keep the loss, none on a CPU; [] for none, names for these without a look",
    )
    gain: float = Field(default=0.03, ge=0, description="auto: share by which steps in turn must be faster")
    loss_tolerance: float = Field(
        default=0.005,
        gt=0,
        description="auto: share by which the loss may differ, with the same weights and after a few steps of its own",
    )
    gradient_tolerance: float = Field(
        default=0.25, gt=0, description="auto: share by which a matrix's gradient may differ; float8 about 0.1"
    )
    from_seconds: float = Field(
        default=3600, ge=0, description="auto: look when at least this much is left for training; each takes a minute"
    )

    @field_validator("use", mode="before")
    @classmethod
    def _names(cls, choice: Any) -> Any:
        """One line for what is no name, where the two types would give one each."""
        names = [choice] if isinstance(choice, str) else choice
        known = get_args(Accelerator)
        if choice == "auto" or (isinstance(names, list | tuple) and all(name in known for name in names)):
            return choice if choice == "auto" else tuple(names)
        raise ValueError(f"found {choice!r}, needed auto or a list of {', '.join(known)}")
