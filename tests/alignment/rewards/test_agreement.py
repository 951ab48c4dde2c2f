"""What sways a judge, measured where it was planted, behind a real HTTP server; kappa against a library."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from components.alignment.rewards.agreement import JudgeFigures, figures_of, kappa
from components.alignment.rewards.chat_judge import ComparingJudge
from components.alignment.rewards.constitution import read_constitution
from components.alignment.rewards.judge import AnswerPair, Verdict, verdict_of_grade
from components.alignment.rewards.verifier import Tier, VerifierJudge
from components.inference.endpoint import ChatEndpoint
from tests.alignment.rewards.planted import NUM_PAIRS, OWN, planted, planted_pairs
from tests.alignment.rewards.scripted_judge import scripted_judge, share

MIRROR = {"first": "second", "second": "first"}
LABELS = st.sampled_from(["first", "second", "tie", "none"])


def figures_by(bias: str, strength: float) -> JudgeFigures:
    pairs, constitution = planted_pairs(), read_constitution()
    with scripted_judge(lambda shown: planted(bias, strength, shown)) as server:
        judge = ComparingJudge(ChatEndpoint(server.url, OWN, "start it"), constitution)
        verdicts = judge.judge(pairs)
    return figures_of(judge, pairs, verdicts, VerifierJudge(constitution).judge(pairs))


@pytest.mark.parametrize("bias", ["position", "length", "self"])
@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0])
def test_a_planted_bias_lies_in_its_interval_and_the_others_are_none(bias: str, strength: float) -> None:
    figures = figures_by(bias, strength)
    measured = {"position": figures.position_bias, "length": figures.length_bias, "self": figures.self_bias}
    for name, estimate in measured.items():
        truth = 0.5 + strength / 2 if name == bias else 0.5
        assert estimate is not None and estimate.n == NUM_PAIRS
        assert estimate.low <= truth <= estimate.high, f"{name}: {estimate}"
        if name == bias and strength:
            assert estimate.low > 0.5, "the bias is seen"
    assert figures.length_bias_of_verifier is not None and figures.length_bias_of_verifier.value == 0.5
    assert figures.self_bias_of_verifier is not None and figures.self_bias_of_verifier.value == 0.5


@pytest.mark.parametrize(("strength", "value"), [(0.0, 1.0), (1.0, 0.0)])
def test_a_judge_agrees_with_the_verifier_as_far_as_no_bias_decides(strength: float, value: float) -> None:
    for bias in ("length", "position"):
        figures = figures_by(bias, strength)
        assert figures.kappa is not None and figures.kappa.n == NUM_PAIRS
        assert figures.kappa.value == pytest.approx(value)
        assert figures.kappa.low <= value <= figures.kappa.high
        if bias == "position":
            assert figures.outcomes["inconsistent"] == (NUM_PAIRS if strength else 0)
            assert figures.consistency is not None and figures.consistency.value == 1 - strength


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=40))
@settings(deadline=None)
def test_kappa_is_that_of_scikit_learn_over_both_orders(labels: list[tuple[str, str]]) -> None:
    one, other = [first for first, _ in labels], [second for _, second in labels]
    ours = kappa(one, other)
    both = [[*each, *(MIRROR.get(label, label) for label in each)] for each in (one, other)]
    if len({*both[0], *both[1]}) == 1:
        assert ours is None, "chance alone explains that all say the same"
    else:
        assert ours is not None and ours.low <= ours.value <= ours.high
        assert ours.value == pytest.approx(cohen_kappa_score(*both))


def test_the_interval_of_kappa_holds_the_truth_as_often_as_it_says() -> None:
    truth, hits = 0.5, 0
    for trial in range(400):
        labels = ["first" if share("label", str(trial), str(n)) < 0.5 else "second" for n in range(60)]
        # Right with probability 0.75, so that kappa is 2 * 0.75 - 1.
        said = [each if share("said", str(trial), str(n)) < 0.75 else MIRROR[each] for n, each in enumerate(labels)]
        estimate = kappa(said, labels)
        assert estimate is not None
        hits += estimate.low <= truth <= estimate.high
    assert 0.91 <= hits / 400 <= 0.99


def test_nothing_is_said_of_what_no_pair_shows() -> None:
    pair = AnswerPair(prompt="p", first="ab", second="cd", first_author=OWN, second_author=OWN)
    judge = VerifierJudge(read_constitution())
    silent = figures_of(judge, [pair], [Verdict(outcome="failed", reason="x")], [verdict_of_grade(1)])
    assert (silent.position_bias, silent.length_bias, silent.self_bias, silent.kappa) == (None, None, None, None)
    assert silent.outcomes["failed"] == 1
    none = figures_of(judge, [], [], [])
    assert none.line == "judge verifier: no pairs; no pair to compare with the verifier"
    tie = figures_of(judge, [pair], [verdict_of_grade(0)], [verdict_of_grade(0)])
    assert tie.kappa is None and tie.position_bias is not None and tie.position_bias.value == 0.5


@pytest.mark.parametrize(
    ("tiers", "texts", "grade"),
    [
        ((Tier.PASSES, Tier.RUNS), ("a", "b"), 4),
        ((Tier.BROKEN, Tier.COMPILES), ("a", "b"), -1),
        ((Tier.BROKEN, Tier.RUNS), ("a", "b"), -3),
        ((Tier.RESOLVES, Tier.RESOLVES), ("    return eval(x)", "b"), -2),
        ((Tier.PASSES, Tier.PASSES), ("a", "b"), 0),
        ((Tier.PASSES, Tier.BROKEN), ("    return eval(x)", "b"), 4),
    ],
)
def test_programs_compare_by_tier_and_then_by_what_is_forbidden(
    tiers: tuple[Tier, Tier], texts: tuple[str, str], grade: int
) -> None:
    pair = AnswerPair(prompt="p", first=texts[0], second=texts[1], first_tier=tiers[0], second_tier=tiers[1])
    (verdict,) = VerifierJudge(read_constitution()).judge([pair])
    assert (verdict.grade, verdict.outcome) == (grade, "preferred" if grade else "tie")
