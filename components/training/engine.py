"""The training loop, in plain torch: it runs under Ray Train on a cluster and alone on a bare machine.

With the steps decided in advance a run is a pure function of its arguments, bit for bit at one world size and thread
count, broken off and resumed or not.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers.modeling_utils import PreTrainedModel

from components.training.batch import Batch
from components.training.checkpoint_writer import opened
from components.training.figures import Gathered, Report
from components.training.pace import Pace
from components.training.parallel import agreed
from components.training.position import resume, save
from components.training.schedule import Schedule
from components.training.trainer import Trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished run. `checkpoint_stall_seconds` of this attempt's loop stood still for checkpoints."""

    steps: int
    tokens: int
    seconds: float
    checkpoint_stall_seconds: float
    history: list[dict[str, float | int | None]]


def train(
    trainer: Trainer,
    *,
    batches: Callable[[int], Batch],
    schedule: Schedule,
    pace: Pace | None,
    run: Path,
    report: Callable[[Report], None],
    validate: Callable[[PreTrainedModel], float] | None,
) -> Outcome:
    """Train to the schedule's end, going on from the last good checkpoint below `run`; the last one is complete when
    this returns.

    batches     this worker's samples of a step: a pure function of the step
    schedule    with decisions taken in advance, or empty beside a `pace` that takes them by the clock
    report      called on every worker, every `report_every_steps` and after the last step
    validate    bits per byte of a model, on worker 0 every `validate_every_steps`
    """
    recipe, world = trainer.recipe, trainer.world
    with opened(run, world, recipe.checkpoints_kept) as writer:
        state = resume(trainer, writer, schedule)
        trainer.warm_up(batches(state.step))
        started, saved = time.monotonic() - state.seconds, state.seconds
        gathered = Gathered(state)
        while schedule.total_steps is None or state.step < schedule.total_steps:
            batch = batches(state.step)
            share = schedule.share(state.step)
            found = trainer.accumulate(state.step, batch)
            gathered.add(found.loss, trainer.update(state.step, share), share * recipe.rates.matrix)
            state.step += 1
            state.tokens += batch.num_tokens * world.size
            state.seconds = agreed(time.monotonic() - started, world)
            if pace:
                pace.decide(schedule, state.step, state.seconds)
            ended = state.step == schedule.total_steps
            if state.step % recipe.report_every_steps == 0 or ended:
                due = validate is not None and world.rank == 0 and (state.step % recipe.validate_every_steps == 0)
                bits = validate(trainer.model) if due and validate else None
                report(gathered.report(state, schedule, bits))
            if state.seconds - saved > recipe.checkpoint_seconds or ended:
                save(trainer, writer, state, schedule)
                saved = state.seconds
    return Outcome(
        steps=state.step,
        tokens=state.tokens,
        seconds=state.seconds,
        checkpoint_stall_seconds=writer.stalled_seconds,
        history=state.history,
    )
