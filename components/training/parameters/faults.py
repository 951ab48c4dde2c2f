"""What pretraining does when workers fail, stop answering, or are fewer than planned."""

from pydantic import Field

from components.core.config import StepConfig


class FaultsConfig(StepConfig):
    """When workers are given up, how often they are restarted, and with how many."""

    max_failures: int = Field(
        default=2, ge=0, description="restarts from the last good checkpoint; the failure after these ends the stage"
    )
    hang_seconds: float = Field(
        default=300,
        ge=1,
        description="a worker that does not answer, or that others wait for this long in one exchange, counts as dead; "
        "longer than a compilation and a validation during training",
    )
    minimum_workers: int | None = Field(
        default=None,
        ge=1,
        description="go on with this many when a cluster has no room for plan.num_workers; null: only with all",
    )
    resize_seconds: float = Field(
        default=60, gt=0, description="with fewer than planned: between looks for room for more"
    )
