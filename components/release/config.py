"""Parameters of a release: what a model must reach, and how commits to the environment repository are signed."""

from pydantic import Field

from components.core.config import StepConfig

ENVIRONMENT_NAME = r"^[a-z][a-z0-9-]{0,62}$"


class ReleaseConfig(StepConfig):
    """Section `release` of params.yaml. Shares are between 0 and 1, differences are candidate minus champion."""

    environment: str = Field("production", pattern=ENVIRONMENT_NAME, description="environment that a release changes")
    max_bits_per_byte_of_xz: float = Field(
        0.95, gt=0, description="absolute: validation bits per byte, divided by those of `xz -9` on the same files"
    )
    min_parse_share: float = Field(0.02, ge=0, le=1, description="absolute: share of completions that parse")
    margin_bits_per_byte: float = Field(
        0.02, ge=0, description="paired: how many bits per byte worse than the champion still counts as no worse"
    )
    margin_parse_share: float = Field(
        0.05, ge=0, le=1, description="paired: how much smaller a share of parsing completions counts as no worse"
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="paired: one-sided confidence needed to promote, and needed to refuse"
    )
    min_items: int = Field(30, ge=2, description="paired: fewer items than these on both models are no evidence")
    author_name: str = Field("Overnight", min_length=1, description="author of commits to the environment repository")
    author_email: str = Field("overnight@localhost", min_length=3, description="address of that author")
