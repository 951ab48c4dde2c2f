"""Several judges as one, and what they are worth.

Programs come before opinions: where the verifier is one of the judges and decides, its verdict counts. Else the mean
grade of those judges that have a verdict does. A judge that agrees with the verifier less than is asked for is left
out, once all pairs are known.
Covers: judges of which some fail or contradict themselves; an error is no vote.
Not covered: weights for judges; judges that make the same mistakes, for which kappa between them is a sign.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from components.alignment.rewards.agreement import MIN_PAIRS, JudgeFigures, figures_of, kappa, label_of, text_of
from components.alignment.rewards.judge import AnswerPair, PairwiseJudge, Verdict
from components.alignment.rewards.verifier import VerifierJudge
from components.core.errors import OvernightError
from components.core.figures.intervals import Estimate

JUDGES = "judges.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReport:
    """What all judges said; `between` has kappa for each two of them, over the pairs that both have a verdict on."""

    min_agreement: float
    judges: tuple[JudgeFigures, ...]
    between: tuple[tuple[str, str, Estimate | None], ...]
    decided_by: dict[str, int]

    @property
    def judges_kept(self) -> tuple[str, ...]:
        """Names of the judges that were not left out."""
        return tuple(each.judge for each in self.judges if not each.is_left_out)

    @property
    def lines(self) -> list[str]:
        """For a person: a line for each judge, and one for each that was left out."""
        lines = [each.line for each in self.judges]
        for each in self.judges:
            if each.is_left_out and each.kappa is not None:
                lines.append(
                    f"judge {each.judge} is left out: kappa {text_of(each.kappa)} with the verifier, "
                    f"preferences.min_agreement needs {self.min_agreement:g}"
                )
        return lines

    def write(self, directory: Path, **more: Any) -> None:
        """judges.json, with what else is to be known."""
        content = {
            "min_agreement": self.min_agreement,
            "judges": [asdict(each) for each in self.judges],
            "between": [
                {"judges": [one, other], "kappa": None if estimate is None else asdict(estimate)}
                for one, other, estimate in self.between
            ],
            "decided_by": self.decided_by,
            **more,
        }
        (directory / JUDGES).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


class Ensemble:
    """Judges of the same pairs, and the verifier that all are measured by, whether or not it decides."""

    name = "ensemble"
    model: str | None = None

    def __init__(
        self, judges: Sequence[PairwiseJudge], verifier: VerifierJudge, *, min_agreement: float, verifier_decides: bool
    ) -> None:
        self._judges = {each.name: each for each in judges}
        self._verifier = verifier
        self._min_agreement = min_agreement
        self._verifier_decides = verifier_decides
        self._pairs: list[AnswerPair] = []
        self._verdicts: dict[str, list[Verdict]] = {name: [] for name in [verifier.name, *self._judges]}

    def judge(self, pairs: Sequence[AnswerPair]) -> list[Verdict]:
        """See PairwiseJudge.judge. All judges count so far; what each said is kept for `conclude`."""
        for name, each in {self._verifier.name: self._verifier, **self._judges}.items():
            self._verdicts[name] += each.judge(pairs)
        self._pairs += pairs
        return self._combined(self._judges)[-len(pairs) :] if pairs else []

    def conclude(self) -> tuple[list[Verdict], JudgeReport]:
        """The verdicts on all pairs so far, by the judges that agree enough with the verifier, and what is known of
        all. Raises OvernightError where no judge is left that has a verdict on anything.
        """
        figures = [self._figures(each) for each in self._judges.values()]
        kept = [each.judge for each in figures if not each.is_left_out]
        silent = {
            each.judge for each in figures if each.pairs and not each.outcomes["preferred"] + each.outcomes["tie"]
        }
        report = JudgeReport(
            min_agreement=self._min_agreement,
            judges=tuple(figures),
            between=tuple((one, other, self._between(one, other)) for one, other in combinations(self._judges, 2)),
            decided_by=self._decided_by(kept),
        )
        if not self._verifier_decides and not set(kept) - silent:
            said = "; ".join(report.lines) or "none is named"
            raise OvernightError(
                f"no judge is left: {said}; name another judge or the verifier in preferences.judges, or lower "
                "preferences.min_agreement"
            )
        return self._combined(kept), report

    def _figures(self, judge: PairwiseJudge) -> JudgeFigures:
        verifier = self._verdicts[self._verifier.name]
        figures = figures_of(judge, self._pairs, self._verdicts[judge.name], verifier)
        agreement = figures.kappa
        is_below = agreement is not None and agreement.n >= MIN_PAIRS and agreement.value < self._min_agreement
        return replace(figures, is_left_out=is_below)

    def _between(self, one: str, other: str) -> Estimate | None:
        both = [
            (label_of(first), label_of(second))
            for first, second in zip(self._verdicts[one], self._verdicts[other], strict=True)
            if first.is_decided and second.is_decided
        ]
        return kappa([first for first, _ in both], [second for _, second in both])

    def _votes(self, names: Sequence[str] | Mapping[str, object]) -> list[tuple[Verdict | None, list[Verdict]]]:
        """For each pair the verifier's verdict, where it decides, and those of the judges of these names."""
        programs = self._verdicts[self._verifier.name]
        return [
            (
                programs[number] if self._verifier_decides and programs[number].outcome == "preferred" else None,
                [self._verdicts[name][number] for name in names],
            )
            for number in range(len(self._pairs))
        ]

    def _combined(self, names: Sequence[str] | Mapping[str, object]) -> list[Verdict]:
        return [program or combine(opinions) for program, opinions in self._votes(names)]

    def _decided_by(self, names: Sequence[str]) -> dict[str, int]:
        """How many pairs programs decided, opinions did, and nobody did and why."""
        counts = Counter(
            "verifier"
            if program
            else ("judges" if (said := combine(opinions)).outcome == "preferred" else said.outcome)
            for program, opinions in self._votes(names)
        )
        return dict(sorted(counts.items()))


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict of several: the mean grade of those that say something; contradictory where grades cancel out.

    Where none says anything, why the first does not; without any verdict, unreadable.
    """
    grades = [each.grade for each in verdicts if each.is_decided]
    if not grades:
        return verdicts[0] if verdicts else Verdict(outcome="unreadable", reason="no judge is left")
    mean = sum(grades) / len(grades)
    if mean:
        return Verdict(outcome="preferred", grade=mean)
    return (
        Verdict(outcome="inconsistent", reason="judges contradict each other")
        if any(grades)
        else Verdict(outcome="tie")
    )
