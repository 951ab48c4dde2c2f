"""Which version answers a request: versions with weights, and a choice among them."""

from pydantic import BaseModel, ConfigDict, Field

from components.serving.versions import FULL_WEIGHT, MODEL, WeightedVersion, WeightedVersions


class Table(BaseModel):
    """What the gateway serves, the commit that asked for it, and the digest of how it is served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: str
    commit: str
    serving: str = Field(description="digest of the serving config and code")
    targets: WeightedVersions = Field(min_length=1)

    def application(self, target: WeightedVersion) -> str:
        """The name of a target's Ray Serve application: other weights or another way to serve are another one."""
        return f"{MODEL}-{target.version}-{target.digest[:12]}-{self.serving[:8]}"


def choose(table: Table, model: str, fraction: float) -> WeightedVersion | None:
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
