"""Teach the fine-tuned model what is better: by pairs of answers, or by rewards for answers of its own (align.method).

Reads   models/sft, data/preferences (pairs), data/instructions (prompts with hidden tests), data/tokens (for the
        guard), plan.json
Writes  models/aligned: a Hugging Face directory, history.csv, and reward/ where a reward model was learned
Covers: dpo, direct preference optimization (Rafailov 2023, arXiv:2305.18290), on the sampled ids of the pairs as they
are; rejection_sampling, the best of several answers by hidden tests; policy, the on-policy loop; fixed steps or the
plan's seconds, start-up included; with too little to learn from the model is passed on unchanged, and the statistics
say `aligned: false` and why; so they do where the aligned model has lost more than align.guard allows.
Not covered: answers without a counterpart (KTO).
"""

import shutil
import time
from dataclasses import replace
from pathlib import Path

from components.alignment.config import AlignConfig
from components.alignment.damage import Guard
from components.alignment.objectives import tuning
from components.alignment.objectives.dpo import PairsObjective
from components.alignment.objectives.objective import Objective, Setting, write_history
from components.alignment.policy.objective import PolicyObjective
from components.alignment.policy.rejection import RejectionObjective
from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import digest_of, read_settings
from components.core.events import Events
from components.core.graph.closure import code_digest
from components.core.step import main
from components.deadline.budget import Budget
from components.tokens.encoding.codec import TextCodec

STAGE = "align"
SAVE_SECONDS = 3.0


def objective_of(config: AlignConfig, preferences: Path, instructions: Path, codec: TextCodec) -> Objective:
    """What the method learns from. Raises DataError for what cannot be learned from."""
    if config.method == "dpo":
        return PairsObjective(config, preferences, codec)
    if config.method == "rejection_sampling":
        return RejectionObjective(config, instructions, codec)
    return PolicyObjective(config, preferences, instructions, codec)


def run(
    config: AlignConfig, *, sft: Path, preferences: Path, instructions: Path, tokens: Path, plan: Path, out: Path
) -> Manifest:
    """Align the fine-tuned model; see the module."""
    events = Events(STAGE)
    budget = Budget.read(plan, STAGE).keep(SAVE_SECONDS)
    inputs = [artifact.read(path) for path in (sft, preferences, instructions, tokens, plan)]
    codec = TextCodec(sft)
    objective = objective_of(config, preferences, instructions, codec)
    key = digest_of([config.digest, code_digest(Path(__file__)), [each.digest for each in inputs]])
    checkpoints = (read_settings().state / "checkpoints" / key).resolve()
    checkpoints.mkdir(parents=True, exist_ok=True)
    with artifact.create(out, stage=STAGE, config=config, inputs=inputs, code=Path(__file__)) as draft:
        draft.statistics = {"method": config.method, **objective.statistics}
        draft.run = {**budget.record()}
        if objective.reason is None:
            guard = Guard(config.guard, tokens, sft, length=config.max_tokens, seed=config.seed)
            setting = Setting(
                sft=sft,
                tokens=tokens,
                digest=inputs[0].digest,
                budget=budget,
                checkpoints=checkpoints,
                out=draft.path,
                events=events,
            )
            with tuning.own_cores():
                _align(objective, setting, guard, draft)
        else:
            events.note(f"the model is passed on unchanged: {objective.reason}")
            tuning.pass_on(sft, draft.path)
            write_history(draft.path / "history.csv", objective.columns, [])
            draft.statistics.update(aligned=False, reason=objective.reason, steps=0)
    shutil.rmtree(checkpoints)
    assert draft.manifest is not None
    return draft.manifest


def _align(objective: Objective, setting: Setting, guard: Guard, draft: artifact.Draft) -> None:
    """Measure, train, measure and save into the draft."""
    events = setting.events
    model = tuning.load_model(setting.sft)
    measuring = time.monotonic()
    before = guard.measure(model)
    measuring = time.monotonic() - measuring
    kept_back = setting.budget.keep(setting.budget.reserve_seconds + 1.2 * measuring)
    learned = objective.learn(model, replace(setting, budget=kept_back))
    after = guard.measure(model)
    objection = guard.objection(before, after) if learned.steps else learned.reason
    if objection:
        events.note(f"the model is passed on, no aligned one is kept: {objection}")
        tuning.pass_on(setting.sft, draft.path)
    else:
        tuning.save_model(model, setting.sft, draft.path)
    draft.rows["history.csv"] = write_history(draft.path / "history.csv", objective.columns, learned.history)
    draft.run |= {"training_seconds": learned.seconds, **learned.run}
    draft.statistics |= {
        "aligned": not objection,
        **({"reason": objection} if objection else {}),
        "steps": learned.steps,
        **learned.figures,
        **guard.record(before, after),
    }


if __name__ == "__main__":
    main(STAGE, AlignConfig, run)
