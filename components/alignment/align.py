"""Teach the fine-tuned model to prefer: direct preference optimization on the pairs (Rafailov 2023, arXiv:2305.18290).

Reads   models/sft, data/preferences, data/tokens (for the guard), plan.json
Writes  models/aligned: a Hugging Face directory and history.csv
Covers: the sampled ids of the pairs as they are, longer ones left out and counted; held-out pairs measured before and
after; fixed steps or the plan's seconds, start-up included; with too few pairs the model is passed on unchanged, and
the statistics say `aligned: false` and why; so they do where the aligned model has lost more than align.guard allows.
Not covered: other objectives (KTO and the like), rewards from programs during training.
"""

import hashlib
import math
import time
from pathlib import Path
from typing import Any

import polars as pl

from components.alignment.config import AlignConfig
from components.alignment.damage import Guard
from components.alignment.objectives import tuning
from components.alignment.objectives.dpo import (
    COLUMNS,
    compare,
    encoded,
    measure,
    optimize,
    read_pairs,
    sampling_gap,
)
from components.core import artifact
from components.core.artifact import Manifest
from components.core.events import Events
from components.core.step import main
from components.deadline.budget import Budget
from components.tokens.encoding.codec import TextCodec

STAGE = "align"
SAVE_SECONDS = 3.0


def split(pairs: pl.DataFrame, heldout_fraction: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs to learn from, and pairs held out, by a hash of the prompt."""
    points = [int.from_bytes(hashlib.sha256(each.encode()).digest()[8:16]) / 2**64 for each in pairs["prompt"]]
    held = pl.Series(points, dtype=pl.Float64) < heldout_fraction
    return pairs.filter(~held), pairs.filter(held)


def pass_on(sft: Path, out: Path) -> None:
    """Copy the model as it is, with an empty history."""
    tuning.pass_on(sft, out)
    (out / "history.csv").write_text(",".join(["step", *COLUMNS]) + "\n")


def run(config: AlignConfig, *, sft: Path, preferences: Path, tokens: Path, plan: Path, out: Path) -> Manifest:
    """Align the fine-tuned model with the pairs; see the module."""
    events = Events(STAGE)
    budget = Budget.read(plan, STAGE)
    inputs = [artifact.read(path) for path in (sft, preferences, tokens, plan)]
    codec = TextCodec(sft)
    table, too_long = read_pairs(preferences / "preferences.parquet", config, codec.special, codec.vocabulary_size)
    learn, held = split(table, config.heldout_fraction)
    with artifact.create(out, stage=STAGE, config=config, inputs=inputs, code=Path(__file__)) as draft:
        draft.statistics = {"pairs": learn.height, "heldout_pairs": held.height, "dropped": {"too_long": too_long}}
        draft.run = {**budget.record()}
        if learn.height < config.min_pairs:
            reason = f"found {learn.height} pairs to learn from, align.min_pairs needs {config.min_pairs}"
            events.note(f"the model is passed on unchanged: {reason}")
            pass_on(sft, draft.path)
            draft.statistics.update(aligned=False, reason=reason, steps=0)
        else:
            guard = Guard(config.guard, tokens, sft, length=config.max_tokens, seed=config.seed)
            with tuning.own_cores():
                draft.statistics.update(
                    _align(config, sft, inputs[0].digest, learn, held, guard, budget, events, draft)
                )
    assert draft.manifest is not None
    return draft.manifest


def _align(
    config: AlignConfig,
    sft: Path,
    checkpoint: str,
    learn: pl.DataFrame,
    held: pl.DataFrame,
    guard: Guard,
    budget: Budget,
    events: Events,
    draft: artifact.Draft,
) -> dict[str, Any]:
    """Train, measure and save into the draft; the statistics."""
    model = tuning.load_model(sft)
    measuring = time.monotonic()
    heldout = encoded(held)
    before = measure(model, heldout, config.batch_size) if heldout else None
    abilities = guard.measure(model)
    measuring = time.monotonic() - measuring
    if before is not None and (gap := sampling_gap(before, held, checkpoint)) is not None:
        events.metric("sampling_gap_nats_per_token", gap, 0)
        draft.run["sampling_gap_nats_per_token"] = gap
    each_epoch = math.ceil(learn.height / config.batch_size)
    steps = tuning.plan_steps(config, each_epoch, budget.keep(1.2 * measuring + SAVE_SECONDS))
    training = time.monotonic()
    reporter = optimize(model, encoded(learn), config, sft, steps, events)
    draft.run["training_seconds"] = time.monotonic() - training
    last = reporter.last_step
    figures: dict[str, Any] = {"aligned": last > 0, "steps": last, "decided": steps.decided()}
    if not last:
        figures["reason"] = "no time was left to train"
        events.note("the model is passed on unchanged: no time was left to train")
    if before is not None:
        compared = compare(before, measure(model, heldout, config.batch_size), config.beta)
        events.metrics(compared, last)
        figures.update(compared)
    after = guard.measure(model)
    if objection := guard.objection(abilities, after):
        figures |= {"aligned": False, "reason": objection}
        events.note(f"the model is passed on, the aligned one is not kept: {objection}")
        tuning.pass_on(sft, draft.path)
    else:
        tuning.save_model(model, sft, draft.path)
    draft.rows["history.csv"] = reporter.write_history(draft.path / "history.csv")
    return figures | guard.record(abilities, after)


if __name__ == "__main__":
    main(STAGE, AlignConfig, run)
