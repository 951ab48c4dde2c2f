"""Several judges as one: votes, errors that are none, and judges that are left out."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from components.alignment.rewards.constitution import read_constitution
from components.alignment.rewards.ensemble import Ensemble, combine
from components.alignment.rewards.judge import AnswerPair, Outcome, Verdict, verdict_of_grade
from components.alignment.rewards.verifier import Tier, VerifierJudge
from components.core.errors import OvernightError


class RuleJudge:
    """Gives the grade of a rule; by a rule that gives an outcome there is no grade."""

    model: str | None = None

    def __init__(self, name: str, *grades: float | Outcome) -> None:
        self.name = name
        self._grades = grades

    def judge(self, pairs: Sequence[AnswerPair]) -> list[Verdict]:
        """The grades in turn, by the number of the pair's prompt."""
        said = [self._grades[int(each.prompt) % len(self._grades)] for each in pairs]
        return [
            Verdict(outcome=each, reason="rule") if isinstance(each, str) else verdict_of_grade(each) for each in said
        ]


def pairs_of(count: int, *, is_decided: bool = True) -> list[AnswerPair]:
    """Pairs of which programs prefer the first, the second, the first, ... or none."""
    tiers = [(Tier.PASSES, Tier.RUNS), (Tier.RUNS, Tier.PASSES)]
    if not is_decided:
        tiers = [(Tier.RESOLVES, Tier.RESOLVES)]
    return [
        AnswerPair(
            prompt=str(number), first="a", second="b", first_tier=tiers[number % len(tiers)][0],
            second_tier=tiers[number % len(tiers)][1],
        )
        for number in range(count)
    ]  # fmt: skip


def ensemble(*judges: RuleJudge, least: float = 0.2, verifier: bool = True) -> Ensemble:
    return Ensemble(judges, VerifierJudge(read_constitution()), min_agreement=least, verifier_decides=verifier)


@pytest.mark.parametrize(
    ("said", "outcome", "grade"),
    [
        ((3.0, 1.0), "preferred", 2.0),
        ((3.0, -1.0), "preferred", 1.0),
        ((3.0, 0.0), "preferred", 1.5),
        ((3.0, "failed"), "preferred", 3.0),
        ((0.0, "unreadable"), "tie", 0.0),
        ((2.0, -2.0), "inconsistent", 0.0),
        ((0.0, 0.0), "tie", 0.0),
        (("failed", "inconsistent"), "failed", 0.0),
        ((), "unreadable", 0.0),
    ],
)
def test_the_mean_of_those_that_say_something_counts(
    said: tuple[float | Outcome, ...], outcome: Outcome, grade: float
) -> None:
    verdicts = [Verdict(outcome=each) if isinstance(each, str) else verdict_of_grade(each) for each in said]
    result = combine(verdicts)
    assert (result.outcome, result.grade) == (outcome, grade)


def test_programs_come_before_opinions_where_they_are_asked() -> None:
    wrong = RuleJudge("wrong", -4, 4)
    assert [each.grade for each in ensemble(wrong, least=-1).judge(pairs_of(2))] == [4, -4]
    assert [each.grade for each in ensemble(wrong, least=-1, verifier=False).judge(pairs_of(2))] == [-4, 4]


def test_a_judge_that_does_not_agree_with_programs_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    several = ensemble(RuleJudge("good", 3, -3), RuleJudge("random", 3, 3, -3, -3))
    several.judge(pairs_of(30))
    several.judge(pairs_of(10))
    several.judge([replace(each, prompt="0") for each in pairs_of(4, is_decided=False)])
    verdicts, report = several.conclude()
    assert [each.grade for each in verdicts[-4:]] == [3.0] * 4
    assert report.judges_kept == ("good",)
    assert any(line.startswith("judge random is left out: kappa 0.0") for line in report.lines)
    report.write(tmp_path, tokens={"prompt": 3})
    content = json.loads((tmp_path / "judges.json").read_text())
    good, random = content["judges"]
    assert (good["kappa"]["value"], good["kappa"]["n"], good["is_left_out"]) == (1.0, 40, False)
    assert (random["is_left_out"], random["outcomes"]["preferred"]) == (True, 44)
    assert content["decided_by"] == {"judges": 4, "verifier": 40}
    assert content["between"][0]["judges"] == ["good", "random"] and content["between"][0]["kappa"]["n"] == 44
    assert content["tokens"] == {"prompt": 3}


def test_a_few_pairs_do_not_tell_that_a_judge_is_a_bad_one() -> None:
    few = ensemble(RuleJudge("wrong", -3, 3))
    few.judge(pairs_of(19))
    assert few.conclude()[1].judges_kept == ("wrong",)
    few.judge([replace(each, prompt="1") for each in pairs_of(2)[1:]])
    assert few.conclude()[1].judges_kept == ()


def test_no_verdict_is_no_agreement_but_an_error_says_nothing_about_a_judge() -> None:
    for said, kept in (("inconsistent", ()), ("unreadable", ()), ("failed", ("judge",))):
        several = ensemble(RuleJudge("judge", said))  # type: ignore[arg-type]
        several.judge(pairs_of(40))
        assert several.conclude()[1].judges_kept == kept, said


@pytest.mark.parametrize("said", ["inconsistent", "failed", -3.0])
def test_without_a_judge_that_remains_there_is_one_line(said: float | Outcome) -> None:
    alone = ensemble(RuleJudge("judge", said), verifier=False)
    alone.judge(pairs_of(40))
    with pytest.raises(OvernightError, match=r"no judge is left: judge judge: .*preferences\.min_agreement") as caught:
        alone.conclude()
    assert "\n" not in str(caught.value)


def test_an_ensemble_of_nothing_to_judge_is_no_error() -> None:
    assert ensemble(RuleJudge("judge", 1)).conclude()[0] == []
    assert ensemble(RuleJudge("judge", 1)).judge([]) == []
