"""Which version answers a request: versions with weights, and a choice among them."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MODEL = "overnight"
FULL_WEIGHT = 100


class Target(BaseModel):
    """A version that is served, with its share of the requests in percent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    digest: str
    weight: int = Field(ge=1, le=FULL_WEIGHT)

    @property
    def model(self) -> str:
        """The name under which a client reaches this version and no other."""
        return f"{MODEL}:{self.version}"


class Table(BaseModel):
    """What the gateway serves, the commit that asked for it, and the digest of how it is served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: str
    commit: str
    serving: str = Field(description="digest of the serving config and code")
    targets: tuple[Target, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _weights_are_whole(self) -> Self:
        total = sum(target.weight for target in self.targets)
        if total != FULL_WEIGHT:
            raise ValueError(f"the weights sum to {total}, needed {FULL_WEIGHT}")
        return self

    def application(self, target: Target) -> str:
        """The name of a target's Ray Serve application: other weights or another way to serve are another one."""
        return f"{MODEL}-{target.version}-{target.digest[:12]}-{self.serving[:8]}"


def choose(table: Table, model: str, fraction: float) -> Target | None:
    """The version for a request that names a model; None for a name that is not served.

    `fraction` in [0, 1), uniform over requests, gives each version its share of the requests for `overnight`.
    """
    if model != MODEL:
        return next((target for target in table.targets if target.model == model), None)
    passed = 0
    for target in table.targets:
        passed += target.weight
        if fraction < passed / FULL_WEIGHT:
            return target
    raise AssertionError(f"fraction {fraction} is not in [0, 1)")
