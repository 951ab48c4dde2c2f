"""The training loop, in plain torch: it runs under Ray Train on a cluster and alone on a bare machine.

With the steps decided in advance a run is a pure function of its arguments, bit for bit at one world size and thread
count, broken off and resumed or not.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers.modeling_utils import PreTrainedModel

from components.training.batch import Batch
from components.training.checkpoint_writer import Writer
from components.training.figures import Gathered, Report
from components.training.pace import Pace
from components.training.parallel import agreed
from components.training.position import Position, opened, resume, save
from components.training.schedule import Schedule
from components.training.spikes import Watch
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
    began_at: float | None = None,
    watch: Watch | None = None,
    sources: Sequence[str] = (),
) -> Outcome:
    """Train to the schedule's end, going on from the last good checkpoint below `run`; the last one is complete when
    this returns.

    batches     this worker's samples of a step: a pure function of the step
    schedule    with decisions taken in advance, or empty beside a `pace` that takes them by the clock
    report      called on every worker, every `report_every_steps` and after the last step
    validate    bits per byte of a model, every `validate_every_steps`
    began_at    when the stage began, seconds since the epoch: what goodput is a share of; None: now
    watch       judges steps before their updates, and may send the run back or past a batch
    sources     names of what Batch.sources numbers, for the loss by source
    """
    recipe, world = trainer.recipe, trainer.world
    with opened(run, world, recipe.checkpoints_kept) as writer:
        if watch and world.rank == 0:
            watch.prepare()
        state = resume(trainer, writer, schedule)
        if pace:
            pace.resumed(state.seconds)
        if watch:
            state.skipped[:] = watch.reader.skipped
        trainer.warm_up(batches(state.step))
        if state.step == 0 and began_at is not None:
            state.began_at = began_at
        gathered = Gathered(state, trainer, sources)
        started, saved = time.monotonic() - state.seconds, state.seconds
        while schedule.total_steps is None or state.step < schedule.total_steps:
            with gathered.waiting():
                batch = batches(state.step)
            share = schedule.share(state.step)
            found = trainer.accumulate(state.step, batch)
            if watch and (back_to := watch.met(trainer, writer, state, batch, found.loss)) is not None:
                trainer.discard()
                if back_to < state.step:
                    state = _gone_back(trainer, writer, schedule, watch)
                    gathered.follow(state)
                    if pace:
                        pace.restart()
                continue
            gathered.add_samples(batch, found)
            gathered.add(found.loss, trainer.update(state.step, share), share * recipe.rates.matrix)
            state.step_seconds += trainer.step_seconds
            state.step += 1
            state.tokens += batch.num_tokens * world.size
            state.seconds = agreed(time.monotonic() - started, world)
            if pace:
                pace.decide(schedule, state.step, state.seconds)
            ended = state.step == schedule.total_steps
            if state.step % recipe.report_every_steps == 0 or ended:
                due = state.step % recipe.validate_every_steps == 0
                bits = trainer.evaluate(validate) if due and validate else None
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


def _gone_back(trainer: Trainer, writer: Writer, schedule: Schedule, watch: Watch) -> Position:
    """The position of the newest checkpoint, with what is passed over by now."""
    state = resume(trainer, writer, schedule)
    if state.step == 0:
        raise OSError(f"{writer.run}: no checkpoint can be read to go back to; run again to start from the beginning")
    state.skipped[:] = watch.reader.skipped
    return state
