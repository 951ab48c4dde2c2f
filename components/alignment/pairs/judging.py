"""What judges are shown of pairs, and what their verdicts make of them."""

from collections.abc import Sequence
from dataclasses import replace

from components.alignment.pairs.pairing import LEAST_GAP, SIDE, Pair
from components.alignment.rewards.judge import HIGHEST_GRADE, AnswerPair, Verdict


def compared(pairs: Sequence[Pair]) -> list[AnswerPair]:
    """Pairs as judges are shown them."""
    return [
        AnswerPair(
            prompt=each.prompt,
            first=each.chosen,
            second=each.rejected,
            first_tier=each.chosen_tier,
            second_tier=each.rejected_tier,
            first_author=each.chosen_author,
            second_author=each.rejected_author,
        )
        for each in pairs
    ]


def decide(pairs: Sequence[Pair], verdicts: Sequence[Verdict], *, min_score_gap: float, judges: str) -> list[Pair]:
    """The pairs that have a verdict, the better answer first.

    What programs found to differ, and what is whole beside what is empty, looping or cut, is never turned round. The
    scores of a pair that opinions decided are 0.5 and the grade's share of the highest one to either side.
    """
    decided = []
    for each, verdict in zip(pairs, verdicts, strict=True):
        if each.chosen_tier != each.rejected_tier or each.rejected_defect:
            decided += [each] if verdict.grade > 0 or each.rejected_defect else []
            continue
        margin = abs(verdict.grade) / HIGHEST_GRADE
        if margin < max(min_score_gap, LEAST_GAP):
            continue
        reason = each.reason if each.reason.startswith("constitution") else f"judge: grade {abs(verdict.grade):g}"
        decided.append(
            replace(
                each if verdict.grade > 0 else turned(each),
                chosen_score=0.5 + margin / 2,
                rejected_score=0.5 - margin / 2,
                margin=margin,
                judge=judges,
                reason=reason,
            )
        )
    return decided


def turned(pair: Pair) -> Pair:
    """The pair with its answers in each other's place."""
    sides = {"chosen": "rejected", "rejected": "chosen"}
    moved = {f"{side}_{name}": getattr(pair, f"{other}_{name}") for side, other in sides.items() for name in SIDE}
    ids = {f"{side}_ids": getattr(pair, f"{other}_ids") for side, other in sides.items()}
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen, **moved, **ids)
