"""How far a judge can be believed: what sways it beside the answers, and how it agrees with programs and with others.

Biases are shares of pairs, from the grades in both orders, so that verdicts that do not survive the swap count too:
position  how often the answer that is shown first is the better one; 0.5 without a bias
length    how often the longer one is; beside it how often the verifier says so of the same pairs
self      how often its own answer is, where the other is by somebody else; beside it the verifier's share
Agreement is Cohen's kappa, 1 for equal verdicts and 0 for what chance gives.
Not covered: a bias for a style, and whether a bias is in the answers rather than in the judge where the verifier is
silent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from components.alignment.rewards.judge import OUTCOMES, AnswerPair, Outcome, PairwiseJudge, Verdict
from components.core.figures.intervals import Estimate, wilson

CONFIDENCE = 0.95
MIN_PAIRS = 20
"""Pairs that the verifier decides, below which a judge's agreement with it says nothing: its interval is wider than
from none to fair."""
NO_VERDICT = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeFigures:
    """What is known of one judge; None where no pair could show it. Intervals hold 95 of 100 times."""

    judge: str
    pairs: int
    outcomes: dict[Outcome, int]
    consistency: Estimate | None
    position_bias: Estimate | None
    length_bias: Estimate | None
    length_bias_of_verifier: Estimate | None
    self_bias: Estimate | None
    self_bias_of_verifier: Estimate | None
    accuracy: Estimate | None
    kappa: Estimate | None
    is_left_out: bool = False

    @property
    def line(self) -> str:
        """In one line, for a person."""
        named = {"position": self.position_bias, "length": self.length_bias, "self": self.self_bias}
        biases = [f"{name} {text_of(share)}" for name, share in named.items() if share is not None]
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items() if count)
        agreement = "no pair to compare with the verifier" if self.kappa is None else f"kappa {text_of(self.kappa)}"
        return "; ".join([f"judge {self.judge}: {counts or 'no pairs'}", agreement, *biases])


def text_of(estimate: Estimate) -> str:
    """A figure with its interval and what it is over."""
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f}, n {estimate.n})"


def figures_of(
    judge: PairwiseJudge, pairs: Sequence[AnswerPair], verdicts: Sequence[Verdict], verifier: Sequence[Verdict]
) -> JudgeFigures:
    """What the verdicts of a judge, beside the verifier's on the same pairs, say about it."""
    longer = [_side(len(each.first) - len(each.second)) for each in pairs]
    own = [_side((each.first_author == judge.model) - (each.second_author == judge.model)) for each in pairs]
    both = [each.outcome in ("preferred", "tie", "inconsistent") for each in verdicts]
    decided = [(said, true) for said, true in zip(verdicts, verifier, strict=True) if true.outcome == "preferred"]
    decided = [(said, true) for said, true in decided if said.outcome != "failed"]
    labels = [(label_of(said), label_of(true)) for said, true in decided]
    return JudgeFigures(
        judge=judge.name,
        pairs=len(pairs),
        outcomes={outcome: sum(each.outcome == outcome for each in verdicts) for outcome in OUTCOMES},
        consistency=_share([each.is_decided for each, readable in zip(verdicts, both, strict=True) if readable]),
        position_bias=_preference([_turned(each, 1, -1) for each in verdicts]),
        length_bias=_bias(verdicts, longer),
        length_bias_of_verifier=_bias([_silent_on_ties(each) for each in verifier], longer),
        self_bias=_bias(verdicts, own),
        self_bias_of_verifier=_bias([_silent_on_ties(each) for each in verifier], own),
        accuracy=_share([one == other for one, other in labels]),
        kappa=kappa([one for one, _ in labels], [other for _, other in labels]),
    )


def kappa(labels: Sequence[str], others: Sequence[str]) -> Estimate | None:
    """Cohen's kappa (1960, Educational and Psychological Measurement 20:37) of two judges' labels of the same pairs.

    Which answer of a pair is called the first means nothing, so that each pair counts in both its orders: else judges
    who always see the better one first would agree by chance alone. The interval is Wilson's of the share of equal
    labels, with the share that chance gives taken as known. None where that share is 1, or without pairs.
    """
    n = len(labels)
    frequencies = [[*each, *map(_mirror, each)] for each in (labels, others)]
    chance = sum(
        frequencies[0].count(label) * frequencies[1].count(label) / (2 * n) ** 2 for label in set(frequencies[0])
    )
    if not n or chance == 1:
        return None
    share = wilson(sum(one == other for one, other in zip(labels, others, strict=True)) / n, n, CONFIDENCE)
    value, low, high = ((each - chance) / (1 - chance) for each in (share.value, share.low, share.high))
    return Estimate(value=value, low=low, high=high, n=n)


def label_of(verdict: Verdict) -> str:
    """first, second, tie or none."""
    if verdict.outcome != "preferred":
        return "tie" if verdict.outcome == "tie" else NO_VERDICT
    return "first" if verdict.grade > 0 else "second"


def _mirror(label: str) -> str:
    return {"first": "second", "second": "first"}.get(label, label)


def _side(difference: int) -> int:
    """1 where the first answer has more of something, -1 where the second has, 0 where neither."""
    return (difference > 0) - (difference < 0)


def _silent_on_ties(verdict: Verdict) -> Verdict:
    """Programs that see no difference say nothing about a share; a judge's tie is half a preference."""
    return verdict if verdict.outcome == "preferred" else Verdict(outcome="unreadable")


def _bias(verdicts: Sequence[Verdict], sides: Sequence[int]) -> Estimate | None:
    """How often the answer of a side is the better one, over the pairs where there is such a side."""
    return _preference([_turned(each, side, side) for each, side in zip(verdicts, sides, strict=True) if side])


def _turned(verdict: Verdict, forward: int, swapped: int) -> tuple[float | None, float | None]:
    """The grades of both orders, each times a sign."""
    first, second = verdict.by_order
    return None if first is None else forward * first, None if second is None else swapped * second


def _preference(orders: Sequence[tuple[float | None, float | None]]) -> Estimate | None:
    """The share of grades above 0, a tie as half a one, over the pairs that have a grade in both orders."""
    pairs = [(first, second) for first, second in orders if first is not None and second is not None]
    return _share([sum(0.5 if not grade else float(grade > 0) for grade in pair) / 2 for pair in pairs])


def _share(values: Sequence[float]) -> Estimate | None:
    return wilson(sum(values) / len(values), len(values), CONFIDENCE) if values else None
