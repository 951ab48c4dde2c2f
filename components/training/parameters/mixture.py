"""How the sources of documents are mixed over a run."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.core.config import StepConfig


class MixturePhase(StepConfig):
    """Weights from a step on."""

    from_step: int | Literal["decay"] = Field(
        default=0,
        description="first step of the phase; decay: where the learning rate begins to decay, by the clock too",
    )
    weights: dict[str, float] = Field(
        description="one for each source of the tokens, 0 to leave it out; they need not add up to 1"
    )


class MixtureConfig(StepConfig):
    """Empty: all tokens are one stream, each read once before any is read again."""

    phases: tuple[MixturePhase, ...] = Field(
        default=(),
        description="such as [{from_step: 0, weights: {code: 3, notes: 1}}, {from_step: decay, weights: ...}]",
    )

    @model_validator(mode="after")
    def _steps_rise(self) -> Self:
        steps = [phase.from_step for phase in self.phases]
        numbers = [step for step in steps if not isinstance(step, str)]
        if steps and (steps[0] != 0 or sorted(set(numbers)) != numbers or "decay" in steps[:-1]):
            raise ValueError(f"from_step is {steps}; needed 0 first, then rising steps, and decay at most as the last")
        return self
