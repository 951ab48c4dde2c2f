"""What a good answer is: principles in words for a judge, with weights, and patterns that no answer may contain."""

import hashlib
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from components.core.config import RegularExpressions, canonical_json, read_yaml, validate

CONSTITUTION = Path(__file__).with_name("constitution.yaml")


class Principle(BaseModel):
    """One rule: words for a judge, and patterns that break it whoever judges."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    text: str
    weight: float = Field(1.0, gt=0, le=100, description="how much it counts beside the others")
    forbids: RegularExpressions = Field((), description="searched in the answer")


class Constitution(BaseModel):
    """The principles that answers are judged by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    principles: tuple[Principle, ...] = Field(min_length=1)

    @property
    def text(self) -> str:
        """All principles, for a model to read before it answers."""
        return " ".join(each.text for each in self.principles)

    @property
    def weighted_text(self) -> str:
        """One line for each principle, with its weight, for a judge to read."""
        return "\n".join(f"- {each.text} (weight {each.weight:g})" for each in self.principles)

    @property
    def digest(self) -> str:
        """sha256 of the principles, hex."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()

    def _broken(self, answer: str) -> tuple[Principle, ...]:
        return tuple(each for each in self.principles if any(re.search(pattern, answer) for pattern in each.forbids))

    def violations(self, answer: str) -> tuple[str, ...]:
        """Names of the principles that an answer breaks by a pattern."""
        return tuple(each.name for each in self._broken(answer))

    def penalty(self, answer: str) -> float:
        """The weights of the principles that an answer breaks by a pattern, together."""
        return sum(each.weight for each in self._broken(answer))


def read_constitution(path: Path = CONSTITUTION) -> Constitution:
    """The constitution of a file. Raises ConfigError with one line for a mistake in it."""
    return validate(read_yaml(path), Constitution, str(path))
