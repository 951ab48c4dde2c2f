"""Answers to instructions whose wording, or whose composition, was never learned: which end, which pass their tests.

Asked for in chat, greedily. They are verified as answers for preferences are: their programs run in the sandbox.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.alignment.examples.chat import prompt_tokens, stop_ids
from components.alignment.examples.instruction import Instruction, Use, read_instructions
from components.alignment.rewards.verifier import Tier, verify
from components.evaluation.config import AnswersConfig
from components.inference.engine import Engine, Sampling
from components.tokens.encoding.codec import TextCodec

SUITES: dict[str, Use] = {"held_out_wordings": "paraphrase", "held_out_compositions": "composition"}
PASSES, ENDS = "passes", "ends"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Of each instruction, in order: whether the answer ended by itself, and whether it passes its tests."""

    ends: list[bool]
    passes: list[bool]


def held_out(instructions: Path, config: AnswersConfig) -> dict[str, tuple[Instruction, ...]]:
    """The instructions by suite, at most `items` of each; suites without any are left out."""
    suites = {name: read_instructions(instructions, [use])[: config.items] for name, use in SUITES.items()}
    return {name: tuple(each) for name, each in suites.items() if each}


def answer(engine: Engine, codec: TextCodec, asked: Sequence[Instruction], config: AnswersConfig) -> Answered:
    """Ask, read and run."""
    special = codec.special
    prompts = [prompt_tokens(codec.encode(each.prompt), special=special) for each in asked]
    sampling = Sampling(max_new_tokens=config.max_new_tokens, temperature=0.0)
    completions = [each[0] for each in engine.generate(prompts, sampling, stop_ids=stop_ids(special))]
    verdicts, _ = verify(
        [(each, codec.decode(completion.tokens)) for each, completion in zip(asked, completions, strict=True)],
        timeout_seconds=config.timeout_seconds,
        memory_bytes=config.memory_bytes,
    )
    return Answered(
        ends=[each.finish_reason == "stop" for each in completions],
        passes=[verdict.tier == Tier.PASSES for verdict in verdicts],
    )
