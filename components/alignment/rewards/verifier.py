"""How far an answer gets: does it compile, are its names known, do its prompt's examples run, do they hold.

The tiers are comparable between answers to one prompt, not between prompts: without examples the highest is RESOLVES.
Programs run in the sandbox; nothing of an answer is executed here.
"""

import ast
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from components.alignment.examples.examples import program
from components.alignment.examples.functions import does_something
from components.alignment.examples.instruction import Instruction
from components.alignment.examples.names import unresolved_names
from components.alignment.rewards.constitution import Constitution
from components.alignment.rewards.judge import HIGHEST_GRADE, AnswerPair, Verdict, verdict_of_grade
from components.execution.sandbox import Outcome, Program, run_programs

IDLE = "does nothing"


class Tier(IntEnum):
    """What an answer achieved, worst first."""

    BROKEN = 0
    COMPILES = 1
    RESOLVES = 2
    RUNS = 3
    PASSES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """A tier and, in a few words that are the same in every run, why not the next."""

    tier: Tier
    reason: str


def examine(instruction: Instruction, answer: str) -> Examination:
    """The verdict without running anything: at most RESOLVES."""
    function = f"{instruction.prompt}\n{answer}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(function)
            compile(tree, "answer", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Examination(tier=Tier.BROKEN, reason=type(error).__name__)
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef | ast.AsyncFunctionDef):
        return Examination(tier=Tier.BROKEN, reason="code after the function")
    if len(tree.body[0].body) < 2:
        return Examination(tier=Tier.BROKEN, reason="no body")
    if not does_something(tree.body[0].body[1:]):
        return Examination(tier=Tier.COMPILES, reason=IDLE)
    if unresolved_names(function, instruction.known_names):
        return Examination(tier=Tier.COMPILES, reason="unknown names")
    return Examination(tier=Tier.RESOLVES, reason="examples not run" if instruction.examples else "no examples")


def verify(
    pairs: Sequence[tuple[Instruction, str]], *, timeout_seconds: float, memory_bytes: int, explain: bool = True
) -> tuple[list[Examination], list[Outcome]]:
    """Verdicts in the order of (instruction, answer) pairs, and the outcomes of the programs that were run.

    Examples are run whenever the answer compiles: a name that we do not know may still exist when it runs. Where they
    do not hold they run once more without being compared: that a program comes to its end is all that we believe of it,
    and no word of what it raised. Not where `explain` is false: none is RUNS then.
    """
    verdicts = [examine(instruction, answer) for instruction, answer in pairs]
    runnable = [
        number
        for number, (instruction, _) in enumerate(pairs)
        if instruction.examples and verdicts[number].tier > Tier.BROKEN
    ]
    programs = [_program(*pairs[number], compared=True) for number in runnable]
    outcomes = run_programs(programs, timeout_seconds=timeout_seconds, memory_bytes=memory_bytes)
    failed = [
        number
        for number, outcome in zip(runnable, outcomes, strict=True)
        if explain and outcome.cause in ("raised", "exited") and verdicts[number].reason != IDLE
    ]
    again = [_program(*pairs[number], compared=False) for number in failed]
    ends = run_programs(again, timeout_seconds=timeout_seconds, memory_bytes=memory_bytes)
    differ = {number for number, outcome in zip(failed, ends, strict=True) if outcome.passed}
    for number, outcome in zip(runnable, outcomes, strict=True):
        verdicts[number] = _raised(verdicts[number], outcome, differs=number in differ)
    return verdicts, outcomes


def _program(instruction: Instruction, answer: str, *, compared: bool) -> Program:
    return program(instruction.preamble, f"{instruction.prompt}\n{answer}", instruction.examples, compared=compared)


def _raised(verdict: Examination, outcome: Outcome, *, differs: bool) -> Examination:
    """The verdict after its program has run; `differs`: its examples come to their end."""
    if outcome.passed:
        return Examination(tier=Tier.PASSES, reason="examples hold")
    if verdict.reason == IDLE:
        return verdict  # that nothing fails in it is no merit
    if differs:
        return Examination(tier=Tier.RUNS, reason="examples differ")
    kind = outcome.detail.split(":")[0] if outcome.cause == "raised" else outcome.cause
    return replace(verdict, reason=kind[:60])


def keep_true_examples(
    instructions: Sequence[Instruction], *, timeout_seconds: float, memory_bytes: int
) -> list[Instruction]:
    """Instructions without the examples that their own reference answer does not satisfy when it runs alone."""
    verdicts, _ = verify(
        [(each, each.answer) for each in instructions], timeout_seconds=timeout_seconds, memory_bytes=memory_bytes
    )
    return [
        each if verdict.tier == Tier.PASSES or not each.examples else replace(each, examples=())
        for each, verdict in zip(instructions, verdicts, strict=True)
    ]


class VerifierJudge:
    """Compares by the tiers of the answers, and in one tier by the weights of the principles that they break."""

    name = "verifier"
    model: str | None = None

    def __init__(self, constitution: Constitution) -> None:
        self._constitution = constitution

    def judge(self, pairs: Sequence[AnswerPair]) -> list[Verdict]:
        """See PairwiseJudge.judge. To pass where the other does not is significant; else a tier is a grade."""
        return [verdict_of_grade(self._grade(each)) for each in pairs]

    def _grade(self, pair: AnswerPair) -> float:
        gap: float = pair.first_tier - pair.second_tier
        if not gap:
            gap = self._constitution.penalty(pair.second) - self._constitution.penalty(pair.first)
        elif max(pair.first_tier, pair.second_tier) == Tier.PASSES:
            gap *= HIGHEST_GRADE
        return float(max(-HIGHEST_GRADE, min(HIGHEST_GRADE, gap)))
