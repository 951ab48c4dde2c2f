"""What a run passes over."""

from typing import Self

from pydantic import Field, model_validator

from components.core.config import StepConfig


class SkipConfig(StepConfig):
    """Batches that are not read, and documents that are not learned."""

    batches: tuple[tuple[int, int], ...] = Field(
        default=(), description="[first, last] numbers of batches that no step reads, both included"
    )
    documents: tuple[str, ...] = Field(
        default=(),
        description="ids of documents: nothing of them is asked for, and other documents do not see them. Their "
        "windows stay where they are, so nothing else of the run moves; an encoder-decoder passes over whole windows",
    )

    @property
    def numbers(self) -> list[int]:
        """Numbers of the batches, rising."""
        return sorted({number for first, last in self.batches for number in range(first, last + 1)})

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for first, last in self.batches:
            if not 0 <= first <= last:
                raise ValueError(f"found batches [{first}, {last}], needed [first, last] with 0 <= first <= last")
        return self
