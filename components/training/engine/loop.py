"""The training loop, in plain torch: it runs under Ray Train on a cluster and alone on a bare machine.

With the steps decided in advance a run is a pure function of its arguments, bit for bit at one world size and thread
count, broken off and resumed or not.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers.modeling_utils import PreTrainedModel

from components.training.engine.batches.batch import Batch
from components.training.engine.checkpoint_writer import Writer
from components.training.engine.devices.parallel import agreed
from components.training.engine.figures import Gathered, Report
from components.training.engine.pace import Pace
from components.training.engine.position import Position, opened, resume, save
from components.training.engine.schedule import Schedule
from components.training.engine.spikes import Watch
from components.training.engine.trainer import Trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished run. `checkpoint_stall_seconds` of this attempt's loop stood still for checkpoints, `data_stall_share`
    of its training waited for batches."""

    steps: int
    tokens: int
    seconds: float
    checkpoint_stall_seconds: float
    data_stall_share: float
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
    report      called on every worker, every `report_every_steps`, with each validation and after the last step
    validate    bits per byte of a model, every `validate_every_steps` and after the last step
    began_at    when the stage began, seconds since the epoch: what goodput is a share of; None: now
    watch       judges steps before their updates, and may send the run back or past a batch
    sources     names of what Batch.sources numbers, for the loss by source
    """
    with opened(run, trainer.world, trainer.recipe.checkpoints_kept) as writer:
        loop = _Loop(trainer, writer, batches, schedule, pace, watch)
        loop.begin(began_at, sources)
        while not loop.ended:
            if loop.step():
                loop.tell(report, validate)
                loop.save()
    state = loop.position
    return Outcome(
        steps=state.step,
        tokens=state.tokens,
        seconds=state.seconds,
        checkpoint_stall_seconds=writer.stalled_seconds,
        data_stall_share=loop.gathered.stall_share(state),
        history=state.history,
    )


class _Loop:
    """One attempt at a run: what its steps read and change."""

    position: Position
    gathered: Gathered

    def __init__(
        self,
        trainer: Trainer,
        writer: Writer,
        batches: Callable[[int], Batch],
        schedule: Schedule,
        pace: Pace | None,
        watch: Watch | None,
    ) -> None:
        self.trainer = trainer
        self.writer = writer
        self.batches = batches
        self.schedule = schedule
        self.pace = pace
        self.watch = watch

    def begin(self, began_at: float | None, sources: Sequence[str]) -> None:
        """Take over the last good checkpoint, warm up, and start the clock."""
        if self.watch and self.trainer.world.rank == 0:
            self.watch.prepare()
        self.position = resume(self.trainer, self.writer, self.schedule)
        if self.pace:
            self.pace.resumed(self.position.seconds)
        if self.watch:
            self.position.skipped[:] = self.watch.reader.skipped
        self.trainer.warm_up(self.batches(self.position.step))
        if self.position.step == 0 and began_at is not None:
            self.position.began_at = began_at
        self.gathered = Gathered(self.position, self.trainer, sources)
        self.started, self.saved = time.monotonic() - self.position.seconds, self.position.seconds

    @property
    def ended(self) -> bool:
        """Whether the schedule has no further step."""
        return self.schedule.total_steps is not None and self.position.step >= self.schedule.total_steps

    def step(self) -> bool:
        """Take a step, or pass over its batch or go back as the watch says: whether the weights moved."""
        trainer, state = self.trainer, self.position
        with self.gathered.waiting():
            batch = self.batches(state.step)
        share = self.schedule.share(state.step)
        gradients = trainer.accumulate(state.step, batch)
        if self.watch and (back_to := self.watch.met(trainer, self.writer, state, batch, gradients.loss)) is not None:
            trainer.discard()
            if back_to < state.step:
                self._go_back(self.watch)
            return False
        self.gathered.add_samples(batch, gradients)
        self.gathered.add(gradients.loss, trainer.update(state.step, share), share * trainer.recipe.rates.matrix)
        state.step_seconds += trainer.step_seconds
        state.step += 1
        state.tokens += batch.num_tokens * trainer.world.size
        state.seconds = agreed(time.monotonic() - self.started, trainer.world)
        if self.pace:
            self.pace.decide(self.schedule, state.step, state.seconds)
        return True

    def tell(self, report: Callable[[Report], None], validate: Callable[[PreTrainedModel], float] | None) -> None:
        """Report where one is due, with a validation where that is."""
        recipe, step = self.trainer.recipe, self.position.step
        due = self.ended or step % recipe.validate_every_steps == 0
        if step % recipe.report_every_steps and not due:
            return
        bits = self.trainer.evaluate(validate) if due and validate else None
        report(self.gathered.report(self.position, self.schedule, bits))

    def save(self) -> None:
        """Begin a checkpoint where one is due."""
        if self.position.seconds - self.saved > self.trainer.recipe.checkpoint_seconds or self.ended:
            save(self.trainer, self.writer, self.position, self.schedule)
            self.saved = self.position.seconds

    def _go_back(self, watch: Watch) -> None:
        """To the position of the newest checkpoint, with what is passed over by now."""
        self.position = resume(self.trainer, self.writer, self.schedule)
        if self.position.step == 0:
            raise OSError(
                f"{self.writer.run}: no checkpoint can be read to go back to; run again to start from the beginning"
            )
        self.position.skipped[:] = watch.reader.skipped
        self.gathered.follow(self.position)
        if self.pace:
            self.pace.restart()
