"""Prompts with hidden tests, as what a policy learns from."""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from components.alignment.config import AlignConfig
from components.alignment.examples.chat import prompt_tokens
from components.alignment.examples.instruction import read_instructions
from components.alignment.objectives import tuning
from components.alignment.objectives.engine_tuning import COLUMNS
from components.alignment.objectives.objective import Learned, Setting
from components.alignment.policy.on_policy import Plan, optimize
from components.alignment.policy.policy_loss import Clip
from components.alignment.policy.verified_reward import VerifiedReward
from components.inference.open import open_engine
from components.tokens.encoding.codec import TextCodec
from components.training.engine.optimizer import Rates
from components.training.engine.trainer import Recipe

REPORT_EVERY_STEPS = 1
KEPT_SECONDS = 30.0  # between checkpoints
MICRO_BATCH_ROWS = 32


class PolicyObjective:
    """Functions to write whose answers can be run: those that are kept for pairs, and those that were learned from."""

    columns: Sequence[str] = COLUMNS

    def __init__(self, config: AlignConfig, instructions: Path, codec: TextCodec) -> None:
        self.config = config
        self.codec = codec
        offered = read_instructions(instructions, ["pairs", "tuning"], kind="function")
        runnable = [each for each in offered if each.examples]
        prompts = [prompt_tokens(codec.encode(each.prompt), special=codec.special) for each in runnable]
        short = [place for place, ids in enumerate(prompts) if len(ids) <= config.policy.max_prompt_tokens]
        self.instructions = [runnable[each] for each in short]
        self.prompts = [prompts[each] for each in short]
        self.statistics: dict[str, Any] = {
            "prompts": len(short),
            "dropped": {"without_tests": len(offered) - len(runnable), "too_long": len(runnable) - len(short)},
        }

    @property
    def reason(self) -> str | None:
        """See Objective.reason."""
        least = self.config.policy.prompts
        if len(self.prompts) >= least:
            return None
        return f"found {len(self.prompts)} prompts with tests, align.policy.prompts needs {least}"

    def learn(self, model: PreTrainedModel, setting: Setting) -> Learned:
        """See Objective.learn."""
        config, policy = self.config, self.config.policy
        reward = VerifiedReward(
            self.instructions, self.codec, timeout_seconds=policy.timeout_seconds, memory_bytes=policy.memory_bytes
        )
        steps = tuning.plan_steps(config, policy.updates * len(self.prompts) / policy.prompts, setting.budget)
        started = time.monotonic()
        with closing(open_engine(setting.sft)) as engine:
            tuned = optimize(
                model,
                plan_of(config),
                recipe_of(config),
                engine,
                self.prompts,
                reward,
                self.codec.special,
                steps,
                setting.checkpoints,
                setting.events,
            )
        return Learned(
            steps=tuned.steps,
            seconds=time.monotonic() - started,
            history=tuned.history,
            figures={"decided": steps.decided(), "tokens": tuned.tokens},
        )


def plan_of(config: AlignConfig) -> Plan:
    """The parameters as the loop takes them."""
    policy = config.policy
    return Plan(
        estimator=policy.advantage,
        clip=Clip(low=policy.clip_low, high=policy.clip_high, kl=policy.kl),
        prompts=policy.prompts,
        group=policy.group,
        updates=policy.updates,
        row_tokens=policy.row_tokens,
        max_new_tokens=policy.max_new_tokens,
        temperature=policy.temperature,
        seed=config.seed,
        discount=policy.discount,
        decay=policy.decay,
        max_gap=policy.max_gap,
        max_deviations=policy.max_deviations,
        max_dead=policy.max_dead,
    )


def recipe_of(config: AlignConfig) -> Recipe:
    """The engine's recipe of a policy's steps: eager, since the rows of a rollout are never as many as the last's."""
    policy = config.policy
    return Recipe(
        precision=config.precision,
        compiled=False,
        micro_batch_samples=MICRO_BATCH_ROWS,
        rates=Rates(**policy.rates.model_dump(), optimizer="adamw", adamw_matrix=policy.adamw_matrix),
        report_every_steps=REPORT_EVERY_STEPS,
        validate_every_steps=1 << 40,
        checkpoint_seconds=KEPT_SECONDS,
    )
