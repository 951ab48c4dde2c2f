"""Learning rates and the update rule."""

from pydantic import Field

from components.core.config import StepConfig


class RatesConfig(StepConfig):
    """Peak learning rates by role and the update rule: Muon for matrices, AdamW for the rest."""

    matrix: float = Field(default=0.04, gt=0, description="hidden matrices (Muon)")
    embedding: float = Field(default=0.3, gt=0, description="input embedding (AdamW); about 0.01 when it is tied")
    output: float = Field(default=0.01, gt=0, description="output embedding (AdamW)")
    norm: float = Field(default=0.01, gt=0, description="RMSNorm weights (AdamW)")
    momentum: float = Field(default=0.95, gt=0, lt=1, description="Muon's, after its warm-up from 0.1 less")
    momentum_warmup_steps: int = Field(default=300, ge=0)
    weight_decay: float = Field(default=0.0, ge=0, description="of hidden matrices")
    betas: tuple[float, float] = Field(default=(0.8, 0.95), description="AdamW")
    epsilon: float = Field(default=1e-10, gt=0, description="AdamW")
    clip_norm: float = Field(default=1.0, gt=0, description="global gradient norm")
