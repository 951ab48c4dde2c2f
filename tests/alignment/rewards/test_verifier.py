"""Tiers of answers whose quality is plain to see."""

import pytest

from components.alignment.examples.instruction import Instruction
from components.alignment.rewards.verifier import Tier, keep_true_examples, verify

ANSWERS = {
    "    return a + b": Tier.PASSES,
    "    import math\n    return math.floor(a + b)": Tier.PASSES,
    "    return a - b": Tier.RUNS,
    "    raise ValueError('no')": Tier.RESOLVES,
    "    raise AssertionError('example differs: add_apples(1, 2) gave 0')": Tier.RESOLVES,
    "    raise AssertionError('not every example has run')": Tier.RESOLVES,
    "    return undefined_name": Tier.COMPILES,
    "    while True:\n        a += 1": Tier.RESOLVES,
    "    import os\n    os._exit(0)": Tier.RESOLVES,
    "    pass": Tier.COMPILES,
    "    return (a +": Tier.BROKEN,
    "": Tier.BROKEN,
    "    # only a comment": Tier.BROKEN,
    "    return a + b\nprint('more')": Tier.BROKEN,
    "    return a + b\n\ndef other():\n    return 1": Tier.BROKEN,
    "    break": Tier.BROKEN,
}


def test_answers_get_the_tier_they_deserve(functions: dict[str, Instruction]) -> None:
    instruction = functions["add_apples"]
    verdicts, outcomes = verify([(instruction, answer) for answer in ANSWERS], timeout_seconds=1.0, memory_bytes=2**28)
    assert dict(zip(ANSWERS, (verdict.tier for verdict in verdicts), strict=True)) == ANSWERS
    compiling = sum(tier > Tier.BROKEN for tier in ANSWERS.values())
    assert len(outcomes) == compiling, "what does not compile is not run"


def test_without_examples_nothing_is_run_and_resolving_is_the_highest(functions: dict[str, Instruction]) -> None:
    verdicts, outcomes = verify(
        [(functions["scale_apples"], "    return a * factor"), (functions["scale_apples"], "    return b")],
        timeout_seconds=1.0,
        memory_bytes=2**28,
    )
    assert [verdict.tier for verdict in verdicts] == [Tier.RESOLVES, Tier.COMPILES]
    assert outcomes == []


@pytest.mark.parametrize(("answer", "kept"), [("    return a + b", True), ("    return a * b", False)])
def test_examples_that_the_reference_does_not_satisfy_are_dropped(
    functions: dict[str, Instruction], answer: str, kept: bool
) -> None:
    reference = functions["add_apples"]
    changed = Instruction(
        document="d",
        name=reference.name,
        prompt=reference.prompt,
        answer=answer,
        examples=reference.examples,
        preamble=reference.preamble,
        known_names=reference.known_names,
    )
    (result,) = keep_true_examples([changed], timeout_seconds=2.0, memory_bytes=2**28)
    assert bool(result.examples) is kept
