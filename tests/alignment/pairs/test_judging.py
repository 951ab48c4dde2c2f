"""What verdicts make of pairs."""

from dataclasses import replace

import pytest

from components.alignment.pairs.judging import decide
from components.alignment.pairs.pairing import Pair
from components.alignment.rewards.judge import Verdict, verdict_of_grade

PROPOSAL = Pair(
    prompt="p",
    chosen="likely",
    rejected="other",
    prompt_ids=(6, 20, 8, 7),
    chosen_ids=(20, 21, 8),
    rejected_ids=(22, 8),
    chosen_finish="stop",
    rejected_finish="stop",
    chosen_log_prob=-1.0,
    rejected_log_prob=None,
    chosen_temperature=0.5,
    rejected_temperature=0.0,
    chosen_checkpoint="tuned",
    rejected_checkpoint="teacher",
    chosen_author="local",
    rejected_author="teacher",
    chosen_tier=2,
    rejected_tier=2,
    chosen_score=0.4,
    rejected_score=0.3,
    margin=0.1,
    rejected_defect="",
    judge="likelihood",
    reason="judge: higher score",
)


def decided(verdict: Verdict, **changes: object) -> list[Pair]:
    return decide([replace(PROPOSAL, **changes)], [verdict], min_score_gap=0.3, judges="one, two")  # type: ignore[arg-type]


def test_a_verdict_turns_a_pair_round_with_all_that_is_said_of_its_answers() -> None:
    (kept,) = decided(verdict_of_grade(3))
    (turned,) = decided(verdict_of_grade(-2))
    assert (kept.chosen, kept.chosen_author, kept.chosen_score) == ("likely", "local", 0.875)
    for name in ("", "_ids", "_finish", "_log_prob", "_temperature", "_checkpoint", "_author", "_tier"):
        assert getattr(turned, f"chosen{name}") == getattr(PROPOSAL, f"rejected{name}"), name
        assert getattr(turned, f"rejected{name}") == getattr(PROPOSAL, f"chosen{name}"), name
    assert (turned.chosen_score, turned.rejected_score, turned.judge) == (0.75, 0.25, "one, two")
    assert turned.reason == "judge: grade 2" and turned.margin == 0.5


def test_what_nobody_decided_is_no_pair_and_programs_are_never_contradicted() -> None:
    for outcome in ("tie", "inconsistent", "unreadable", "failed"):
        assert decided(Verdict(outcome=outcome)) == []  # type: ignore[arg-type]
    assert decided(verdict_of_grade(1)) == [], "a margin of a quarter is below the least one"
    by_programs = replace(PROPOSAL, rejected_tier=1, reason="verifier: resolves over compiles (why)")
    assert decide([by_programs], [verdict_of_grade(1)], min_score_gap=0.3, judges="one") == [by_programs]
    assert decide([by_programs], [verdict_of_grade(-4)], min_score_gap=0.3, judges="one") == []


@pytest.mark.parametrize("defect", ["empty", "loop", "cut"])
def test_an_answer_with_a_defect_is_never_the_better_one(defect: str) -> None:
    for grade in (4, -4):
        (pair,) = decided(verdict_of_grade(grade), rejected_defect=defect, reason=f"defect: whole over {defect}")
        assert pair.chosen == "likely" and pair.reason == f"defect: whole over {defect}"
