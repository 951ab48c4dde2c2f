"""Parameters of a release: what a model must reach, and how commits to the environment repository are signed."""

from pydantic import Field

from components.core.config import StepConfig
from components.evaluation.comparison.criteria import Criteria

ENVIRONMENT_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
# What Git takes in a name or an address: no angle brackets or controls, and something besides punctuation.
_AUTHOR = r"^[^<>\p{Cc}]*[\p{L}\p{N}][^<>\p{Cc}]*$"


class ReleaseConfig(StepConfig):
    """Section `release` of params.yaml. Shares are between 0 and 1, differences are candidate minus champion."""

    environment: str = Field(
        "production", pattern=ENVIRONMENT_NAME, description="environment that a release changes and the gateway serves"
    )
    max_bits_per_byte_of_xz: float = Field(
        0.95, gt=0, description="absolute: validation bits per byte, divided by those of `xz -9` on the same files"
    )
    min_parse_share: float = Field(0.02, ge=0, le=1, description="absolute: share of completions that parse")
    criteria: Criteria = Field(
        default_factory=Criteria, description="paired: what a candidate must show against the champion"
    )
    author_name: str = Field(
        "Overnight", pattern=_AUTHOR, max_length=200, description="author of commits to the environment repository"
    )
    author_email: str = Field(
        "overnight@localhost", pattern=_AUTHOR, max_length=200, description="address of that author"
    )
