"""A judge with one planted bias, and pairs on which it shows.

The bias decides a share of the pairs, drawn from their texts; else the judge finds the right answer.
"""

from components.alignment.rewards.judge import AnswerPair
from components.alignment.rewards.verifier import Tier
from tests.alignment.rewards.scripted_judge import Shown, better, share

OWN, OTHER = "judge-model", "another"
NUM_PAIRS = 120


def answer(number: int, *, is_right: bool, is_long: bool, is_own: bool) -> str:
    """A text that says of itself what a scripted judge has to know."""
    words = f"right {is_right} own {is_own} number {number}"
    return words + " and more" * 5 if is_long else words


def planted_pairs() -> list[AnswerPair]:
    """Pairs in which being right, being the longer one, being by the judge and standing first say nothing of each
    other."""
    pairs = []
    for number in range(NUM_PAIRS):
        is_right, is_long, is_own = (bool(number >> bit & 1) for bit in range(3))
        texts = [
            answer(number, is_right=is_right == side, is_long=is_long == side, is_own=is_own == side)
            for side in (True, False)
        ]
        tiers = (Tier.PASSES, Tier.RUNS) if is_right else (Tier.RUNS, Tier.PASSES)
        authors = (OWN, OTHER) if is_own else (OTHER, OWN)
        pairs.append(
            AnswerPair(
                prompt=f"task {number}",
                first=texts[0],
                second=texts[1],
                first_tier=tiers[0],
                second_tier=tiers[1],
                first_author=authors[0],
                second_author=authors[1],
            )
        )
    return pairs


def planted(bias: str, strength: float, shown: Shown) -> str:
    """The verdict of a judge with one bias; the two orders of a pair are drawn together, but for that of position."""
    texts = (shown.a, shown.b) if bias == "position" else tuple(sorted((shown.a, shown.b)))
    if share(bias, *texts) >= strength:
        return better(shown, is_a="right True" in shown.a)
    sides = {"position": True, "length": len(shown.a) > len(shown.b), "self": "own True" in shown.a}
    return better(shown, is_a=sides[bias])
