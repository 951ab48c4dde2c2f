"""Depth and width."""

from pydantic import Field

from components.core.config import StepConfig


class Size(StepConfig):
    """Depth and width of one candidate model."""

    layers: int = Field(ge=1, description="blocks")
    width: int = Field(ge=32, description="features of the residual stream; a multiple of head_width")
