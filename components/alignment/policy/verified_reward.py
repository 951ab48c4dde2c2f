"""Hidden tests as the reward: 1 for an answer whose examples all hold in the sandbox, else 0.

That an answer parses and knows its names is reported and not paid for: a model that is paid for compiling writes loops.
Equal answers to one prompt run once.
"""

from collections.abc import Sequence

import numpy as np

from components.alignment.examples.instruction import Instruction
from components.alignment.policy.rollouts import Earned
from components.alignment.rewards.verifier import Tier, verify
from components.inference.engine import Completion
from components.tokens.encoding.codec import TextCodec


class VerifiedReward:
    """The reward of answers to some instructions."""

    def __init__(
        self, instructions: Sequence[Instruction], codec: TextCodec, *, timeout_seconds: float, memory_bytes: int
    ) -> None:
        self.instructions = instructions
        self.codec = codec
        self.timeout_seconds = timeout_seconds
        self.memory_bytes = memory_bytes

    def __call__(self, numbers: Sequence[int], answers: Sequence[Completion]) -> Earned:
        """What each answer has earned, and how far they came."""
        texts = [self.codec.decode(each.tokens) for each in answers]
        asked = list(zip(numbers, texts, strict=True))
        distinct = list(dict.fromkeys(asked))
        verdicts, _ = verify(
            [(self.instructions[number], text) for number, text in distinct],
            timeout_seconds=self.timeout_seconds,
            memory_bytes=self.memory_bytes,
            explain=False,
        )
        tiers = dict(zip(distinct, (each.tier for each in verdicts), strict=True))
        reached = np.array([tiers[each] for each in asked])
        figures = {
            "answers_that_parse": float((reached >= Tier.COMPILES).mean()),
            "answers_that_resolve": float((reached >= Tier.RESOLVES).mean()),
            "distinct_answers": len(distinct) / len(asked),
        }
        return Earned(values=(reached == Tier.PASSES).astype(np.float64), figures=figures)
