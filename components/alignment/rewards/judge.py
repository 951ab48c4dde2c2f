"""Judges of answers. Both apply the constitution (constitution.yaml).

ModelJudge        the model itself: the mean probability of an answer's tokens, given the constitution as system text
grading_endpoint  a model behind an OpenAI-compatible API that reads the constitution and grades from 0 to 10
Both give scores from 0 to 1, or none; each principle whose patterns an answer matches costs 1 more, whoever judges.
Covers: a judge's reply without a grade (no score, the answer is left out).
Not covered: a judge's bias for its own or for short answers.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from components.alignment.examples.chat import answer_tokens, prompt_tokens
from components.core.config import RegularExpressions, canonical_json, read_settings, read_yaml, validate
from components.inference.endpoint import ChatEndpoint, EndpointJudge, Judge
from components.inference.engine import Engine
from components.tokens.encoding.codec import TextCodec

CONSTITUTION = Path(__file__).with_name("constitution.yaml")
Score = float | None
_GRADE = re.compile(r"\b(10|\d)(?:\.\d+)?\b")


class Principle(BaseModel):
    """One rule: words for a judge, and patterns that break it whoever judges."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    text: str
    forbids: RegularExpressions = Field((), description="searched in the answer")


class Constitution(BaseModel):
    """The principles that answers are judged by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    principles: tuple[Principle, ...] = Field(min_length=1)

    @property
    def text(self) -> str:
        """All principles, for a judge to read."""
        return " ".join(each.text for each in self.principles)

    @property
    def digest(self) -> str:
        """sha256 of the principles, hex."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()

    def violations(self, answer: str) -> tuple[str, ...]:
        """Names of the principles that an answer breaks by a pattern."""
        return tuple(
            each.name for each in self.principles if any(re.search(pattern, answer) for pattern in each.forbids)
        )


def read_constitution(path: Path = CONSTITUTION) -> Constitution:
    """The constitution of a file. Raises ConfigError with one line for a mistake in it."""
    return validate(read_yaml(path), Constitution, str(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is judged: an answer to a prompt."""

    prompt: str
    text: str


class ModelJudge:
    """The model judges itself: how probable it finds an answer when it has read the constitution."""

    def __init__(self, engine: Engine, codec: TextCodec, constitution: Constitution, context_tokens: int) -> None:
        self.name = "model"
        self._engine = engine
        self._codec = codec
        self._constitution = constitution
        self._context_tokens = context_tokens

    def judge(self, cases: Sequence[Answer]) -> list[Score]:
        """exp(mean log probability of the answer's tokens and its end). Where the context is too short for all, the
        constitution is cut; where even prompt and answer do not fit, there is no score.
        """
        system, special = self._codec.encode(self._constitution.text), self._codec.special
        sequences: list[list[int]] = []
        lengths: list[int] = []
        for answer in cases:
            target = answer_tokens(self._codec.encode(answer.text), special=special)
            alone = prompt_tokens(self._codec.encode(answer.prompt), special=special)
            room = self._context_tokens - len(target) - len(alone) - 2
            head = prompt_tokens(self._codec.encode(answer.prompt), system[: max(0, room)], special=special)
            sequences.append([*head, *target])
            lengths.append(len(target))
        fits = [len(sequence) <= self._context_tokens for sequence in sequences]
        logarithms = iter(self._engine.score([each for each, fit in zip(sequences, fits, strict=True) if fit]))
        scores: list[Score] = []
        for answer, length, fit in zip(cases, lengths, fits, strict=True):
            if not fit:
                scores.append(None)
                continue
            mean = float(next(logarithms)[-length:].mean())
            scores.append(math.exp(mean) - len(self._constitution.violations(answer.text)))
        return scores


def grading_endpoint(endpoint: ChatEndpoint, constitution: Constitution) -> EndpointJudge[Answer, Score]:
    """A judge that reads the constitution and gives grades over ten; no score for a reply without a grade."""
    principles = "\n".join(f"- {each.text}" for each in constitution.principles)

    def score(answer: Answer, reply: str) -> Score:
        grade = _GRADE.search(reply)
        broken = len(constitution.violations(answer.text))
        return None if grade is None else min(10.0, float(grade.group())) / 10 - broken

    return EndpointJudge(
        endpoint,
        f"You grade code by these principles:\n{principles}\n"
        "Reply with one number from 0 (breaks them) to 10 (follows them all) and nothing else.",
        question=lambda answer: f"Task:\n{answer.prompt}\n\nAnswer:\n{answer.text}",
        verdict=score,
    )


def open_answer_judge(constitution: Constitution, engine: Engine, codec: TextCodec) -> Judge[Answer, Score]:
    """The judge that the settings name: an endpoint where there is one, else the model itself."""
    endpoint = ChatEndpoint.of_settings(read_settings(), "unset OVERNIGHT_JUDGE_URL to let the model judge itself")
    if endpoint is None:
        return ModelJudge(engine, codec, constitution, engine.context_tokens)
    return grading_endpoint(endpoint, constitution)
