"""A registered version of the model with its share of the requests: what Git asks for, what the gateway serves, what a
status says, in one form."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MODEL = "overnight"
FULL_WEIGHT = 100
MAX_VERSION = 2**31 - 1


class WeightedVersion(BaseModel):
    """A registered version and its share of the requests, in percent."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: int = Field(ge=1, le=MAX_VERSION)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the model's manifest")
    weight: int = Field(ge=1, le=FULL_WEIGHT, description="percent of requests")

    @property
    def model(self) -> str:
        """The name under which a client reaches this version and no other."""
        return f"{MODEL}:{self.version}"


def _check_weights(versions: tuple[WeightedVersion, ...]) -> tuple[WeightedVersion, ...]:
    """Refuse shares that do not make a whole, and a version with two of them."""
    total = sum(each.weight for each in versions)
    if versions and total != FULL_WEIGHT:
        raise ValueError(f"the weights sum to {total}, needed {FULL_WEIGHT}")
    if len({each.version for each in versions}) != len(versions):
        raise ValueError("a version is listed twice, needed one line per version")
    return versions


WeightedVersions = Annotated[tuple[WeightedVersion, ...], Field(max_length=FULL_WEIGHT), AfterValidator(_check_weights)]
"""All that share the requests; none at all where nothing is served."""
