"""Pairs: best against worst by (tier, score), and none that is invented."""

from hypothesis import given
from hypothesis import strategies as st

from components.alignment.preferences import Candidate, pair, pair_up, statistics_of
from components.alignment.rewards.verifier import Tier


def candidate(tier: int, score: float | None, answer: str = "", prompt: str = "p") -> Candidate:
    return Candidate(
        document="d",
        name="f",
        prompt=prompt,
        answer=answer or f"{tier} {score}",
        temperature=0.5,
        finished=True,
        has_examples=False,
        tier=tier,
        verdict="why",
        score=score,
        violations="",
        judge="model",
        author="local",
    )


@given(st.lists(st.tuples(st.integers(0, 4), st.one_of(st.none(), st.floats(-2, 1))), max_size=6))
def test_a_pair_is_the_best_and_the_worst_that_really_differ(found: list[tuple[int, float | None]]) -> None:
    candidates = [candidate(tier, score, str(number)) for number, (tier, score) in enumerate(found)]
    keys = sorted((tier, score) for tier, score in found if score is not None)
    result = pair(candidates, min_score_gap=0.05, require_compiling=False)
    if len(keys) < 2 or (keys[0][0] == keys[-1][0] and keys[-1][1] - keys[0][1] < 0.05):
        assert result is None
    else:
        assert result is not None
        assert (result.rejected_tier, result.rejected_score) == keys[0]
        assert (result.chosen_tier, result.chosen_score) == keys[-1]
        assert result.chosen != result.rejected


def test_the_verifier_comes_before_the_judge_and_the_reason_says_which() -> None:
    by_tier = pair(
        [candidate(Tier.PASSES, 0.1), candidate(Tier.BROKEN, 0.9)], min_score_gap=0.05, require_compiling=True
    )
    assert by_tier is not None
    assert (by_tier.chosen_tier, by_tier.reason) == (4, "verifier: passes over broken (why)")
    by_score = pair([candidate(1, 0.1), candidate(1, 0.9)], min_score_gap=0.05, require_compiling=True)
    assert by_score is not None
    assert (by_score.chosen_score, by_score.reason) == (0.9, "judge: higher score")


def test_a_broken_answer_is_never_the_better_one_where_that_is_required() -> None:
    broken = [candidate(0, 0.1), candidate(0, 0.9)]
    assert pair(broken, min_score_gap=0.05, require_compiling=True) is None
    assert pair(broken, min_score_gap=0.05, require_compiling=False) is not None


def test_statistics_say_when_nothing_differs() -> None:
    candidates = [candidate(1, 0.5, "a"), candidate(1, 0.5, "b"), candidate(1, 0.5, "c", prompt="q")]
    pairs = pair_up(candidates, min_score_gap=0.0, require_compiling=True)
    figures = statistics_of(candidates, pairs)
    assert pairs == []
    assert (figures["prompts"], figures["candidates"], figures["pairs"]) == (2, 3, 0)
    assert "share_passing" not in figures, "nothing could pass, so there is no share"
