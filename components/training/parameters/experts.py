"""Experts of a mixture (plan.architecture mixtral)."""

from pydantic import Field

from components.core.config import StepConfig


class ExpertsConfig(StepConfig):
    """A feed-forward in parts, of which each token passes a few that a router chooses."""

    number: int = Field(default=8, ge=2, description="experts of a block")
    per_token: int = Field(
        default=2, ge=1, description="experts that a token passes; they share the feed-forward's width"
    )
    balance: float = Field(
        default=0.01, ge=0, description="weight of the loss that spreads tokens over experts (Switch Transformer: 0.01)"
    )
