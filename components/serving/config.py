"""Parameters of serving: what one request may ask for, and how requests share a model."""

from pydantic import Field

from components.core.config import StepConfig


class ServingConfig(StepConfig):
    """Section `serving` of params.yaml."""

    max_body_bytes: int = Field(1_048_576, ge=1024, description="larger requests are refused with 413")
    max_samples: int = Field(32, ge=1, description="prompts times n of one request")
    max_stops: int = Field(4, ge=1, description="stop strings of one request")
    num_replicas: int = Field(1, ge=1, description="copies of each model version")
    num_threads: int | None = Field(None, ge=1, description="threads of one copy; all cores it may use when absent")
    max_batch_size: int = Field(16, ge=1, description="requests that run together in one copy")
    max_queued_requests: int = Field(256, ge=1, description="requests that wait for a version; further ones get 503")
    request_timeout_seconds: float = Field(120.0, gt=0, description="a request that takes longer gets 504")
    drain_seconds: float = Field(30.0, gt=0, description="how long a version that was taken out may finish its work")
