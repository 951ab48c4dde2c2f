"""Pairs: best against worst by (tier, score), and none that is invented."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from components.alignment.preferences import Candidate, Pair, decide, pair, pair_up, statistics_of
from components.alignment.rewards.judge import Verdict, verdict_of_grade
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


PROPOSAL = Pair(
    prompt="p",
    chosen="likely",
    rejected="other",
    chosen_score=0.4,
    rejected_score=0.3,
    judge="likelihood",
    reason="judge: higher score",
    chosen_tier=2,
    rejected_tier=2,
    chosen_author="local",
    rejected_author="teacher",
)


def decided(verdict: Verdict, **changes: object) -> list[Pair]:
    return decide([replace(PROPOSAL, **changes)], [verdict], min_score_gap=0.3, judges="one, two")  # type: ignore[arg-type]


def test_a_verdict_turns_a_pair_round_with_its_authors() -> None:
    (kept,) = decided(verdict_of_grade(3))
    (turned,) = decided(verdict_of_grade(-2))
    assert (kept.chosen, kept.chosen_author, kept.chosen_score) == ("likely", "local", 0.875)
    assert (turned.chosen, turned.chosen_author, turned.rejected, turned.rejected_author) == (
        ("other", "teacher", "likely", "local")
    )
    assert (turned.chosen_score, turned.rejected_score, turned.judge) == (0.75, 0.25, "one, two")
    assert turned.reason == "judge: grade 2"


def test_what_nobody_decided_is_no_pair_and_programs_are_never_contradicted() -> None:
    for outcome in ("tie", "inconsistent", "unreadable", "failed"):
        assert decided(Verdict(outcome=outcome)) == []  # type: ignore[arg-type]
    assert decided(verdict_of_grade(1)) == [], "a margin of a quarter is below the least one"
    assert decided(verdict_of_grade(-3), rejected=" ") == [], "to say nothing is nothing to learn"
    by_programs = replace(PROPOSAL, rejected_tier=1, reason="verifier: resolves over compiles (why)")
    assert decide([by_programs], [verdict_of_grade(1)], min_score_gap=0.3, judges="one") == [by_programs]
    assert decide([by_programs], [verdict_of_grade(-4)], min_score_gap=0.3, judges="one") == []
