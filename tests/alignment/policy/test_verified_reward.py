"""Hidden tests as a reward: what is paid, and what is not."""

from pathlib import Path

import numpy as np

from components.alignment.examples.examples import Example
from components.alignment.examples.instruction import Instruction
from components.alignment.policy import verified_reward
from components.alignment.policy.verified_reward import VerifiedReward
from components.inference.engine import Completion
from components.tokens.encoding.codec import TextCodec

PROMPT = 'def double(x):\n    """Return x times two."""'
TASK = Instruction(
    name="double",
    prompt=PROMPT,
    answer="    return x * 2",
    examples=(Example(source="double(4)", want="8\n"), Example(source="double(0)", want="0\n")),
)
CASES = {
    "    return x * 2": 1.0,
    "    return x + x": 1.0,
    "    return x": 0.0,
    "    return 8 if x else 0": 1.0,
    "    pass": 0.0,
    "    return (": 0.0,
    "    print('passed')\n    raise SystemExit(0)": 0.0,
    "    import os\n    os._exit(0)": 0.0,
    "    class Same(int):\n        __eq__ = lambda self, other: True\n    import builtins\n    builtins.exit(0)": 0.0,
    "    while True:\n        pass": 0.0,
}


def test_only_answers_whose_tests_hold_are_paid(world: Path, monkeypatch: object) -> None:
    codec = TextCodec(world / "base")
    run: list[int] = []
    verify = verified_reward.verify

    def counted(pairs, **limits):  # type: ignore[no-untyped-def]
        run.append(len(pairs))
        return verify(pairs, **limits)

    monkeypatch.setattr(verified_reward, "verify", counted)  # type: ignore[attr-defined]
    reward = VerifiedReward([TASK], codec, timeout_seconds=1.0, memory_bytes=2**28)
    answers = [Completion(tokens=tuple(codec.encode(each)), finish_reason="stop", stop_id=8) for each in CASES]
    earned = reward([0] * len(answers) * 2, answers * 2)
    assert earned.values.tolist() == [*CASES.values()] * 2
    assert run == [len(CASES)], "an answer that comes twice runs once"
    assert earned.figures["distinct_answers"] == 0.5
    assert np.isclose(earned.figures["answers_that_parse"], 0.9)
