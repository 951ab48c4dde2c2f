"""What the loop says of itself every few steps. Plain torch."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from components.training.engine.batches.batch import Batch
from components.training.engine.devices.memory import peak_bytes
from components.training.engine.devices.parallel import summed
from components.training.engine.position import Position
from components.training.engine.schedule import Schedule
from components.training.engine.trainer import DTYPES, Gradients, Trainer

PEAK_SECONDS = 0.5
# The best of several on a CPU: the largest fills all cores, the smallest is over before another process cuts in. Beside
# 25 busy ones, on one thread in bfloat16, 384 gave 218 GFLOP/s and 2048 gave 6; by its own CPU time 195.
PEAK_SIDES = {"cpu": (384, 1024, 2048), "cuda": (8192,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the loop says every few steps. Means since the last report.

    seconds             of training since the run's start, of attempts before this one too
    tokens_per_second   tokens of all workers over seconds of training: what the loop does beside its steps (reading,
                        validation, waiting for checkpoints) counts as time
    flops_utilisation   FLOPs that the model needs (6 per parameter and token, and attention's; not what a recipe adds:
                        Muon's, recomputation) over seconds in steps, as a share of what this worker's device makes of
                        one large product (`gemm_flops`) in the compute precision; None where the needs are not known
    goodput             share of the time since the stage began, attempts before this one and their interruptions
                        included, in steps that count: not start-up, compilation, waits for data and checkpoints,
                        validation, or steps that a resumed run takes again
    memory_bytes        the most that was held so far: tensors on a GPU, the worker's process on a CPU
    data_stall_seconds  this worker waited for batches
    data_stall_share    that as a share of its seconds of training; the goal is 0.01 at most
    loss_by_source      mean nats per label of each source that was read, over all workers, where there are several;
                        since the last report or, right after a run was resumed, since then
    """

    step: int
    tokens: int
    loss: float
    gradient_norm: float
    learning_rate: float
    tokens_per_second: float
    seconds: float
    total_steps: int | None
    validation_bits_per_byte: float | None
    flops_utilisation: float | None
    goodput: float
    memory_bytes: int
    data_stall_seconds: float
    data_stall_share: float
    loss_by_source: dict[str, float]


def gemm_flops(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of a square product, 384 to 2048 wide on a CPU and 8192 on a GPU: the fastest of about half a second.

    Of drawn numbers: a GPU multiplies equal ones faster than its power allows for others. A processor without bfloat16
    takes a minute for a product 2048 wide, at the speed of a narrow one: what would take longer than its share is left.
    """
    sides, best = PEAK_SIDES[torch.device(device).type], 0.0
    wait: Callable[[], object] = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    generator = torch.Generator().manual_seed(0)  # of its own: the run's must not move
    for side in sides:
        if best and 2 * side**3 / best > PEAK_SECONDS:
            break
        left = torch.randn(side, side, generator=generator).to(device, dtype)
        until, rounds = time.monotonic() + PEAK_SECONDS / len(sides), 0
        while rounds < 3 or time.monotonic() < until:
            wait()
            started = time.perf_counter()
            left @ left
            wait()
            best = max(best, 2 * side**3 / (time.perf_counter() - started))
            rounds += 1
    return best


class Gathered:
    """Losses, norms and seconds in steps since the last report. Times one large product, so make it before the clock of
    a run starts."""

    def __init__(self, position: Position, trainer: Trainer, sources: Sequence[str] = ()) -> None:
        self.sources = sources
        self.by_source = np.zeros((2, len(sources)))  # nats, labels
        self.stall_seconds = 0.0
        self.stalled_seconds = 0.0  # until the last report, since the start or the last resumption
        self.began_seconds = position.seconds
        self.rate = 0.0
        self.world = trainer.world
        self.seconds_per_token: float | None = None  # of this worker's device at its peak
        if trainer.recipe.flops_per_token is not None:
            peak = gemm_flops(DTYPES[trainer.recipe.precision], self.world.device)
            self.seconds_per_token = trainer.recipe.flops_per_token / self.world.size / peak
        self.follow(position)

    def follow(self, position: Position) -> None:
        """Go on from a position: the first one, or an earlier one that the run went back to."""
        self.losses = position.losses
        self.norms = position.norms
        self.since = (position.tokens, position.seconds, position.step_seconds)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count what a block takes as waiting for data."""
        started = time.perf_counter()
        yield
        self.stall_seconds += time.perf_counter() - started

    def add_samples(self, batch: Batch, gradients: Gradients) -> None:
        """One step's losses by source."""
        if len(self.sources) > 1:
            num = len(self.sources)
            self.by_source[0] += np.bincount(batch.sources, gradients.sample_nats, minlength=num)
            self.by_source[1] += np.bincount(batch.sources, gradients.sample_labels, minlength=num)

    def add(self, loss: float, norm: float, rate: float) -> None:
        """One step's loss and gradient norm, and the rate of the matrices."""
        self.losses.append(loss)
        self.norms.append(norm)
        self.rate = rate

    def report(self, position: Position, schedule: Schedule, bits: float | None) -> Report:
        """Means since the last one; adds the row to the history and starts anew."""
        tokens, seconds, step_seconds = self.since
        new, in_steps = position.tokens - tokens, max(1e-9, position.step_seconds - step_seconds)
        passed = max(1e-9, position.seconds - seconds)
        report = Report(
            step=position.step,
            tokens=position.tokens,
            loss=float(np.mean(self.losses)),
            gradient_norm=float(np.mean(self.norms)),
            learning_rate=self.rate,
            tokens_per_second=new / passed,
            seconds=position.seconds,
            total_steps=schedule.total_steps,
            validation_bits_per_byte=bits,
            flops_utilisation=self.seconds_per_token and self.seconds_per_token * new / in_steps,
            goodput=position.step_seconds / max(position.step_seconds, time.time() - position.began_at, 1e-9),
            memory_bytes=peak_bytes(self.world.device),
            data_stall_seconds=self.stall_seconds,
            data_stall_share=self.stall_seconds / passed,
            loss_by_source=self._loss_by_source(),
        )
        position.history.append(
            {
                "step": report.step,
                "tokens": report.tokens,
                "loss": report.loss,
                "learning_rate": report.learning_rate,
                "validation_bits_per_byte": bits,
            }
        )
        self.losses.clear()
        self.norms.clear()
        self.stalled_seconds += self.stall_seconds
        self.by_source[:], self.stall_seconds = 0, 0.0
        self.since = (position.tokens, position.seconds, position.step_seconds)
        return report

    def stall_share(self, position: Position) -> float:
        """Share of this attempt's training that this worker waited for batches; 0 where it took no step."""
        waited = self.stalled_seconds + self.stall_seconds
        return waited / max(1e-9, position.seconds - self.began_seconds)

    def _loss_by_source(self) -> dict[str, float]:
        if len(self.sources) < 2:
            return {}
        nats, labels = summed(torch.from_numpy(self.by_source).to(self.world.device), self.world).cpu().numpy()
        return {
            name: float(nats[number] / labels[number]) for number, name in enumerate(self.sources) if labels[number]
        }
