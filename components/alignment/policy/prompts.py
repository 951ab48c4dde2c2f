"""Functions to write whose answers can be run: those that are kept for pairs, and those that were learned from."""

from pathlib import Path
from typing import Any

from components.alignment.config import PolicyConfig
from components.alignment.examples.chat import prompt_tokens
from components.alignment.examples.instruction import read_instructions
from components.alignment.policy.verified_reward import VerifiedReward
from components.tokens.encoding.codec import TextCodec


class Prompts:
    """Prompts of at most `max_prompt_tokens`, their ids, and the reward of answers to them."""

    def __init__(self, config: PolicyConfig, instructions: Path, codec: TextCodec) -> None:
        offered = read_instructions(instructions, ["pairs", "tuning"], kind="function")
        runnable = [each for each in offered if each.examples]
        ids = [prompt_tokens(codec.encode(each.prompt), special=codec.special) for each in runnable]
        short = [place for place, each in enumerate(ids) if len(each) <= config.max_prompt_tokens]
        self.config = config
        self.codec = codec
        self.instructions = [runnable[each] for each in short]
        self.ids = [ids[each] for each in short]
        self.statistics: dict[str, Any] = {
            "prompts": len(short),
            "dropped": {"without_tests": len(offered) - len(runnable), "too_long": len(runnable) - len(short)},
        }

    def __len__(self) -> int:
        """How many there are."""
        return len(self.ids)

    def reason(self, least: int) -> str | None:
        """Why they are too few; None where there are `least`."""
        if len(self) >= least:
            return None
        return f"found {len(self)} prompts with tests, needed {least}; ask for more in instructions.curriculum.pairs"

    def reward(self) -> VerifiedReward:
        """Hidden tests."""
        return VerifiedReward(
            self.instructions,
            self.codec,
            timeout_seconds=self.config.timeout_seconds,
            memory_bytes=self.config.memory_bytes,
        )
