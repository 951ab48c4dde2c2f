"""What an update does beside its rates."""

from typing import Literal

from pydantic import Field

from components.core.config import StepConfig


class UpdateConfig(StepConfig):
    """The rule, the shape of the schedule, and what is added to the loss or kept beside the weights."""

    optimizer: Literal["muon", "adamw"] = Field(
        default="muon", description="of hidden matrices; adamw takes adamw_matrix as their peak rate"
    )
    adamw_matrix: float = Field(default=0.003, gt=0, description="peak rate of hidden matrices under adamw")
    schedule: Literal["wsd", "cosine"] = Field(
        default="wsd",
        description="wsd: stable, then a straight line over decay_share; cosine: half a cosine over the whole run",
    )
    z_loss: float = Field(
        default=0.0, ge=0, description="times ln(Z)^2 of each token's softmax, added to what training lowers; 1e-4"
    )
    average_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="of a running average of the weights, which is then exported; 0: none, the last weights",
    )
    rates_width: int = Field(default=128, ge=1, description="width that pretrain.rates were found at")
    output_width_exponent: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="the output embedding's rate falls with this power of the width: 0.6 measured from 32 to 128, 0.5 "
        "nanochat's, 1 muP's. Muon's matrices need none: their rate may stay, its optimum did not fall with the width",
    )
