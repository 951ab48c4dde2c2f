"""Pairs: best against worst by (tier, defect, score), and none that is invented."""

from hypothesis import given
from hypothesis import strategies as st

from components.alignment.pairs.candidates import Candidate
from components.alignment.pairs.pairing import Pair, pair_up, unpaired
from components.alignment.preferences import statistics_of
from components.alignment.rewards.verifier import Tier


def candidate(tier: int, score: float | None, answer: str = "", prompt: str = "p", **changes: object) -> Candidate:
    values: dict[str, object] = {
        "document": "d",
        "name": "f",
        "prompt": prompt,
        "answer": answer or f"{tier} {score}",
        "prompt_ids": (6, 20, 8, 7),
        "answer_ids": (*(answer or f"{tier} {score}").encode(), 8),
        "finish": "stop",
        "log_prob": -3.0,
        "temperature": 0.5,
        "checkpoint": "tuned",
        "has_examples": False,
        "tier": tier,
        "verdict": "why",
        "score": score,
        "violations": "",
        "judge": "model",
        "author": "local",
        "defect": "",
    }
    return Candidate(**values | changes)  # type: ignore[arg-type]


def pair(candidates: list[Candidate], *, require_compiling: bool = True) -> Pair | None:
    pairs = pair_up(candidates, min_score_gap=0.05, require_compiling=require_compiling)
    return pairs[0] if pairs else None


@given(st.lists(st.tuples(st.integers(0, 4), st.one_of(st.none(), st.floats(-2, 1))), max_size=6))
def test_a_pair_is_the_best_and_the_worst_that_really_differ(found: list[tuple[int, float | None]]) -> None:
    candidates = [candidate(tier, score, str(number)) for number, (tier, score) in enumerate(found)]
    keys = sorted((tier, score) for tier, score in found if score is not None)
    result = pair(candidates, require_compiling=False)
    if len(keys) < 2 or (keys[0][0] == keys[-1][0] and keys[-1][1] - keys[0][1] < 0.05):
        assert result is None
    else:
        assert result is not None
        assert (result.rejected_tier, result.rejected_score) == keys[0]
        assert (result.chosen_tier, result.chosen_score) == keys[-1]
        assert result.chosen != result.rejected


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.floats(0, 1), st.sampled_from(["", "", "empty", "loop", "cut"])), max_size=12
    ),
    st.integers(1, 4),
)
def test_pairs_keep_to_their_rules_however_many_there_are(found: list[tuple[int, float, str]], most: int) -> None:
    candidates = [candidate(*each[:2], str(number), defect=each[2]) for number, each in enumerate(found)]
    by_answer = {each.answer: each for each in candidates}
    pairs = pair_up(candidates, min_score_gap=0.1, require_compiling=True, max_pairs_per_prompt=most)
    used = [answer for each in pairs for answer in (each.chosen, each.rejected)]
    assert len(pairs) <= most and len(set(used)) == len(used), "no answer is in two pairs"
    for each in pairs:
        better, worse = by_answer[each.chosen], by_answer[each.rejected]
        assert not better.defect and better.tier >= Tier.COMPILES
        assert better.tier > worse.tier or worse.defect or each.margin >= 0.1
        assert (each.chosen_ids, each.rejected_ids) == (better.answer_ids, worse.answer_ids)
        assert each.rejected_defect == worse.defect


def test_the_verifier_comes_before_the_judge_and_the_reason_says_which() -> None:
    by_tier = pair([candidate(Tier.PASSES, 0.1), candidate(Tier.BROKEN, 0.9)])
    assert by_tier is not None
    assert (by_tier.chosen_tier, by_tier.reason) == (4, "verifier: passes over broken (why)")
    by_score = pair([candidate(1, 0.1), candidate(1, 0.9)])
    assert by_score is not None
    assert (by_score.chosen_score, by_score.reason) == (0.9, "judge: higher score")


def test_an_answer_with_a_defect_is_rejected_and_never_chosen() -> None:
    cut = candidate(2, 0.9, "cut", finish="length", answer_ids=(1, 2), defect="cut")
    result = pair([cut, candidate(2, 0.5, "whole")])
    assert result is not None
    assert (result.chosen, result.reason) == ("whole", "defect: whole over cut")
    assert (result.rejected_ids, result.rejected_finish) == ((1, 2), "length"), "it carries no stop token"
    assert pair([cut, candidate(1, 0.1, "worse")]) is None, "a better tier does not make it chosen"
    assert pair([cut, candidate(2, 0.1, "loop", defect="loop")]) is None


def test_answers_that_read_the_same_make_no_pair() -> None:
    assert pair([candidate(2, 0.9, "    return a"), candidate(2, 0.1, "    return a\n")]) is None


def test_a_broken_answer_is_never_the_better_one_where_that_is_required() -> None:
    broken = [candidate(0, 0.1), candidate(0, 0.9)]
    assert pair(broken) is None
    assert pair(broken, require_compiling=False) is not None


def test_an_answer_without_a_counterpart_is_kept_where_it_surely_passes_or_fails() -> None:
    alone = {
        "passes": candidate(4, 0.5, prompt="a", has_examples=True),
        "fails": candidate(3, 0.5, prompt="b", has_examples=True),
        "broken": candidate(0, 0.5, prompt="c"),
        "unknown": candidate(2, 0.5, prompt="d"),
        "cut": candidate(2, 0.5, prompt="e", defect="cut"),
        "unscored": candidate(4, None, prompt="f", has_examples=True),
    }
    paired = [candidate(4, 0.5, prompt="g", has_examples=True), candidate(1, 0.1, prompt="g")]
    candidates = [*alone.values(), *paired]
    pairs = pair_up(candidates, min_score_gap=0.05, require_compiling=True)
    assert [each.prompt for each in pairs] == ["g"]
    labels = {each.prompt: each.label for each in unpaired(candidates, pairs)}
    assert labels == {"a": True, "b": False, "c": False, "e": False, "f": True}


def test_statistics_say_when_nothing_differs() -> None:
    candidates = [candidate(1, 0.5, "a"), candidate(1, 0.5, "b"), candidate(1, 0.5, "c", prompt="q")]
    pairs = pair_up(candidates, min_score_gap=0.0, require_compiling=True)
    figures = statistics_of(candidates, pairs)
    assert pairs == []
    assert (figures["prompts"], figures["candidates"], figures["pairs"]) == (2, 3, 0)
    assert "share_passing" not in figures, "nothing could pass, so there is no share"
