"""Prompts with hidden tests, as what a policy learns from."""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from components.alignment.config import AlignConfig
from components.alignment.objectives import tuning
from components.alignment.objectives.engine_tuning import COLUMNS
from components.alignment.objectives.objective import Learned, Setting
from components.alignment.policy.learned_reward import learned_reward
from components.alignment.policy.on_policy import Plan, optimize
from components.alignment.policy.policy_loss import Clip
from components.alignment.policy.prompts import Prompts
from components.alignment.policy.rollouts import Reward
from components.inference.open import open_engine
from components.tokens.encoding.codec import TextCodec
from components.training.engine.optimizer import Rates
from components.training.engine.trainer import Recipe

REPORT_EVERY_STEPS = 1
KEPT_SECONDS = 30.0  # between checkpoints
MICRO_BATCH_ROWS = 32


class PolicyObjective:
    """The on-policy loop on prompts with hidden tests."""

    columns: Sequence[str] = COLUMNS

    def __init__(self, config: AlignConfig, preferences: Path, instructions: Path, codec: TextCodec) -> None:
        self.config = config
        self.preferences = preferences
        self.codec = codec
        self.prompts = Prompts(config.policy, instructions, codec)
        self.statistics: dict[str, Any] = dict(self.prompts.statistics)

    @property
    def reason(self) -> str | None:
        """See Objective.reason."""
        return self.prompts.reason(self.config.policy.prompts)

    def learn(self, model: PreTrainedModel, setting: Setting) -> Learned:
        """See Objective.learn."""
        config, policy = self.config, self.config.policy
        reward, figures = self._reward(setting)
        steps = tuning.plan_steps(config, policy.updates * len(self.prompts) / policy.prompts, setting.budget)
        started = time.monotonic()
        with closing(open_engine(setting.sft)) as engine:
            tuned = optimize(
                model,
                plan_of(config),
                recipe_of(config),
                engine,
                self.prompts.ids,
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
            figures={"decided": steps.decided(), "tokens": tuned.tokens, **figures},
        )

    def _reward(self, setting: Setting) -> tuple[Reward, dict[str, Any]]:
        """What answers earn, and what is known of it."""
        if self.config.policy.reward == "tests":
            return self.prompts.reward(), {}
        reward, figures = learned_reward(self.config, self.preferences, self.codec, self.prompts.ids, setting)
        return reward, {"reward_model": figures}


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
