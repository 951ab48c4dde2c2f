"""Judges of two answers to one prompt: what they compare, what they say, and when that counts.

A judge is one of
VerifierJudge    (verifier.py) programs: tiers of what was run, and patterns that the constitution forbids
LikelihoodJudge  (model_judge.py) a local model: which answer it finds more probable under the constitution
ComparingJudge   (chat_judge.py) a model that follows instructions, here or behind an OpenAI-compatible endpoint
Ensemble         (ensemble.py) several of them
An opinion is asked for in both orders and counts only when both say the same: contradictory orders are no verdict and
no tie, and neither is a reply that cannot be read or that does not come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Outcome = Literal["preferred", "tie", "inconsistent", "unreadable", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("preferred", "tie", "inconsistent", "unreadable", "failed")
GRADES = {"significantly better": 4, "better": 3, "slightly better": 2, "negligibly better": 1}
"""How people said by how much an answer is better for Llama 2 (Touvron et al. 2023, arXiv:2307.09288, section 3.2.1);
the last is "negligibly better or unsure". 0 is a tie."""
HIGHEST_GRADE = max(GRADES.values())
LOCAL = "local"
"""The author of what the model that is being tuned writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPair:
    """Two answers to one prompt. `tier` is what the verifier says of an answer, `author` the model that wrote it."""

    prompt: str
    first: str
    second: str
    first_tier: int = 0
    second_tier: int = 0
    first_author: str = ""
    second_author: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a judge makes of a pair. `grade` is from -4 to 4, above 0 for the first answer; 0 unless one is preferred.

    `by_order` is its grade of the first answer when that was shown first, and when it was shown second; None where
    it could not be read.
    """

    outcome: Outcome
    grade: float = 0.0
    reason: str = ""
    by_order: tuple[float | None, float | None] = (None, None)

    @property
    def is_decided(self) -> bool:
        """Whether it says something about the answers, a tie included."""
        return self.outcome in ("preferred", "tie")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read of one order: a grade, above 0 for the answer that was shown first, or why there is none."""

    grade: float | None = None
    problem: Literal["unreadable", "failed"] = "unreadable"
    reason: str = ""


class PairwiseJudge(Protocol):
    """Compares answers. `model` is the author whose answers are its own; None where it is no model."""

    name: str
    model: str | None

    def judge(self, pairs: Sequence[AnswerPair]) -> list[Verdict]:
        """The verdict on each pair, in their order. Raises OvernightError when the judge is not there."""
        ...


def verdict_of_grade(grade: float) -> Verdict:
    """The verdict of a judge to whom the order means nothing."""
    return Verdict(outcome="preferred" if grade else "tie", grade=grade, by_order=(grade, grade))


def verdict_of_orders(forward: Reading, swapped: Reading) -> Verdict:
    """The verdict of a judge that was shown a pair in both orders: what survives the swap."""
    first, second = forward.grade, None if swapped.grade is None else -swapped.grade
    by_order = (first, second)
    if first is None or second is None:
        readings = [each for each in (forward, swapped) if each.grade is None]
        worst = next((each for each in readings if each.problem == "failed"), readings[0])
        return Verdict(outcome=worst.problem, reason=worst.reason, by_order=by_order)
    if first * second > 0:
        return Verdict(outcome="preferred", grade=(first + second) / 2, by_order=by_order)
    if first == second == 0:
        return Verdict(outcome="tie", by_order=by_order)
    return Verdict(outcome="inconsistent", reason="the orders contradict each other", by_order=by_order)
