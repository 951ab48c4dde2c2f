"""laws.json: a law fitted on the user's corpus, what it was fitted on, and whether it speaks of a planned run.

`overnight plan --fit` writes it; the plan stage reads it as a dependency. An empty object says that there is none.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.artifact import Manifest, write_file
from components.core.config import digest_of
from components.core.errors import DataError, one_line
from components.training.config import PlanConfig
from components.training.planning.law_fit import FITTED_NUMBERS, Fitted, Interval, Run
from components.training.planning.laws import Law

UNIT = "bits per byte"
# A prediction is made up to this many times the largest size and length that were measured; beyond it the law only
# ranks. Hoffmann's own fit spans a factor of about 200 in both.
REACH = 30.0


class Numbers(BaseModel):
    """The five numbers of a law."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    irreducible: float
    a: float
    alpha: float
    b: float
    beta: float


class Point(BaseModel):
    """A finished run of the ladder. `loss` in bits per byte of held-out text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int
    width: int
    parameters: int
    steps: int
    tokens: int
    loss: float

    @property
    def run(self) -> Run:
        """What the fit wants to know of it."""
        return Run(parameters=self.parameters, tokens=self.tokens, loss=self.loss)


class Domain(BaseModel):
    """What a law holds for. Not compared: rates and objectives of pretrain; after a change there, fit again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokenizer_digest: str
    vocabulary_size: int
    architecture: str
    shape_digest: str

    def differences(self, other: Self) -> list[str]:
        """Names of what differs."""
        return [name for name in type(self).model_fields if getattr(self, name) != getattr(other, name)]


class HeldBack(BaseModel):
    """The largest run, which a first fit had not seen, and what that fit said of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    point: Point
    low: float
    value: float
    high: float


class FittedLaw(BaseModel):
    """laws.json. Losses in bits per byte of held-out text; N counts every parameter, D every training token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str = UNIT
    domain: Domain
    law: Numbers
    draws: tuple[Numbers, ...]
    spread: float
    confidence: float
    points: tuple[Point, ...]
    held_back: HeldBack | None

    @classmethod
    def of(cls, fitted: Fitted, points: Sequence[Point], domain: Domain, confidence: float) -> Self:
        """The record of a fit."""
        held: HeldBack | None = None
        if fitted.held_back is not None:
            run, interval = fitted.held_back
            point = next(each for each in points if each.run == run)
            held = HeldBack(point=point, low=interval.low, value=interval.value, high=interval.high)
        return cls(
            domain=domain,
            law=_numbers(fitted.law),
            draws=tuple(_numbers(each) for each in fitted.draws),
            spread=fitted.spread,
            confidence=confidence,
            points=tuple(points),
            held_back=held,
        )

    @property
    def fitted(self) -> Fitted:
        """The law with its draws, ready to predict."""
        sizes, lengths = [each.parameters for each in self.points], [each.tokens for each in self.points]

        def law(numbers: Numbers) -> Law:
            return Law(
                source="fitted on this corpus",
                parameters=(min(sizes) / REACH, max(sizes) * REACH),
                tokens=(min(lengths) / REACH, max(lengths) * REACH),
                **numbers.model_dump(),
            )

        freedom = len(self.points) - FITTED_NUMBERS
        draws = tuple(law(each) for each in self.draws)
        return Fitted(law=law(self.law), draws=draws, spread=self.spread, freedom=freedom)

    def intervals(self) -> dict[str, dict[str, float]]:
        """Each of the five numbers with its interval."""
        fitted = self.fitted
        return {name: asdict(fitted.interval(name, self.confidence)) for name in Numbers.model_fields}

    def predict(self, parameters: float, tokens: float) -> Interval:
        """Bits per byte of a run that has not been made."""
        return self.fitted.predict(parameters, tokens, self.confidence)


def domain_of(tokens: Manifest, plan: PlanConfig) -> Domain:
    """What a law of these tokens and this kind of model holds for."""
    names = {"head_width", "queries_per_key_value", "tied", "rope_theta", "sequence_length", "batch_samples"}
    return Domain(
        tokenizer_digest=str(tokens.statistics.get("tokenizer_digest", "")),
        vocabulary_size=int(tokens.statistics["vocabulary_size"]),
        architecture=plan.architecture,
        shape_digest=digest_of(plan.model_dump(mode="json", include=names)),
    )


def _numbers(law: Law) -> Numbers:
    return Numbers(**{name: getattr(law, name) for name in Numbers.model_fields})


def read(path: Path) -> FittedLaw | None:
    """The law at a path; None for an empty object. Raises DataError when the file is neither."""
    mend = "run `overnight plan --fit` again, or write {} into it"
    try:
        content = json.loads(path.read_bytes())
        return FittedLaw.model_validate_json(json.dumps(content)) if content else None
    except (OSError, ValueError, ValidationError) as error:
        raise DataError(f"{path}: not a fitted law: {one_line(error)}; {mend}") from error


def write(path: Path, law: FittedLaw) -> None:
    """Replace the law at a path as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, (law.model_dump_json(indent=1) + "\n").encode())


def ensure(path: Path) -> None:
    """Write an empty object where there is no file: a dependency of the graph has to exist."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, b"{}\n")
