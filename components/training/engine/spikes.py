"""Spikes: steps whose loss or gradient lies far above those before, which documents they read, and what is done.

A step is judged after its backward pass and before its update, so that the loss of each document is taken with the very
weights that met it, and a batch that is passed over has left no trace: a run that passes over what is recorded from its
start on ends with the same weights, bit for bit. Records go to <run>/spikes.jsonl, a line each, synced before anything
is done about it: a run that is killed then finds its decision there and takes it again. What is recorded holds no
times, so that equal runs write equal lines; only a rewind depends on which checkpoints there are.

    step, batch                      of the run; the batch's number is what skip lists name
    loss, gradient_norm              of the step, and loss_z, gradient_norm_z: how far above the steps before
    skipped                          numbers of the batches that are passed over for it
    samples                          window, epoch and source of each sample of the global batch
    documents                        id, tokens in the batch and nats_per_token, by what each added to the loss

Plain torch. Not covered: a loss that is not a number, which ends the run; checkpoints that are older than those kept:
a wider rewind goes back to the oldest, and passes over what comes after it.
"""

import json
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from components.training.engine import checkpoint
from components.training.engine.batches.batch import IGNORED, Batch, number_of_batch
from components.training.engine.checkpoint_writer import Writer
from components.training.engine.devices.parallel import World, agreed
from components.training.engine.position import Position
from components.training.engine.trainer import Trainer

RECORDS = "spikes.jsonl"
MAD_TO_SIGMA = 0.6745  # of a normal distribution: the median absolute deviation, in standard deviations
LEAST_DEVIATION = 1e-3  # of the median: losses that hardly differ make no spike of a small step
LEAST_NORM_DEVIATION = 0.3  # of a norm's logarithm, whose own is 0.05: a z-score of 6 is 14 times the median
LEAST_NORM = 1e-30


class SpikeError(Exception):
    """The run ends at a spike: one line that says where and what to do. The last good checkpoint is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a spike is and what is done about it; pretrain.spikes describes each."""

    policy: Literal["warn", "skip", "stop"]
    threshold: float
    window_steps: int
    warmup_steps: int
    rewind_batches: int
    skip_batches: int
    max_skips: int
    top_documents: int


class Reader(Protocol):
    """What is known of the batches of a run. `skipped` is the one list of the run, and grows here."""

    skipped: list[int]

    def begins_phase(self, step: int) -> bool:
        """Whether sources are mixed otherwise from this step on: losses before it say nothing of those after it."""

    def described(self, step: int) -> list[dict[str, Any]]:
        """window, epoch and source of each sample of a step's global batch."""

    def documents(self, step: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Row of the document of each label of this worker's batch, of the labels' shape."""

    def ids(self, rows: Sequence[int]) -> list[str]:
        """Ids of documents by their rows."""


def robust_z(value: float, past: Sequence[float], least_deviation: float | None = None) -> float:
    """How far a value lies above the median of past ones, in robust standard deviations. The median deviation counts as
    `least_deviation` when it is smaller; None: LEAST_DEVIATION of the median.

    The modified z-score 0.6745 (x - median) / MAD of Iglewicz and Hoaglin 1993, "How to Detect and Handle Outliers".
    """
    median = statistics.median(past)
    deviation = statistics.median([abs(each - median) for each in past])
    least = LEAST_DEVIATION * abs(median) if least_deviation is None else least_deviation
    return MAD_TO_SIGMA * (value - median) / max(deviation, least, 1e-12)


def scores(recent: Sequence[tuple[float, float]], loss: float, norm: float) -> tuple[float, float]:
    """Robust z-scores of a step's loss and of the logarithm of its gradient norm, after steps with these of each.

    A loss is a mean over many windows, and its upper tail is short: 400,000 random batches of 8 windows of a real run
    passed 3.9 once in 10,000. A norm's is long: a window out of a table, a few tokens again and again whose gradients
    add up, makes it 2 to 5 times the median at an ordinary loss, 8 to 24 by the deviation of ordinary norms. A window
    of noise among seven others makes it 1.4 times. So norms are measured by a deviation that is wide on purpose: they
    tell of a gradient that has lost its scale, losses of what was read. docs/log.md has the rates.
    """
    losses, norms = zip(*recent, strict=True)
    logs = [math.log(max(each, LEAST_NORM)) for each in norms]
    return robust_z(loss, losses), robust_z(math.log(max(norm, LEAST_NORM)), logs, LEAST_NORM_DEVIATION)


def by_document(
    documents: NDArray[np.int64], labels: NDArray[np.int64], nats: NDArray[np.float32], world: World
) -> NDArray[np.float64]:
    """(row, tokens, nats) of every document of the global batch, shape (documents, 3), the largest excess first.

    documents, labels and nats are this worker's, shape (B, T). A document's excess is what it has more than as many
    tokens of the batch have on average: what it added to the loss. All workers take part and get the same.
    """
    scored = labels != IGNORED
    rows, places = np.unique(documents[scored], return_inverse=True)
    mine = np.stack([rows, np.bincount(places), np.bincount(places, nats[scored])], axis=1).astype(np.float64)
    if world.size > 1:
        most = torch.tensor([len(mine)], device=world.device)
        torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
        padded = torch.full((int(most), 3), -1.0, dtype=torch.float64)
        padded[: len(mine)] = torch.from_numpy(mine)
        padded = padded.to(world.device)
        every = [torch.empty_like(padded) for _ in range(world.size)]
        torch.distributed.all_gather(every, padded)
        mine = torch.cat(every).cpu().numpy()
        mine = mine[mine[:, 0] >= 0]
    rows, places = np.unique(mine[:, 0], return_inverse=True)
    totals = np.stack([rows, np.bincount(places, mine[:, 1]), np.bincount(places, mine[:, 2])], axis=1)
    mean = totals[:, 2].sum() / max(1.0, totals[:, 1].sum())
    return np.asarray(totals[np.argsort(mean * totals[:, 1] - totals[:, 2], kind="stable")])


class Watch:
    """Judges each step of a run, records spikes, and says from where the run goes on."""

    def __init__(self, rules: Rules, reader: Reader, run: Path) -> None:
        self.rules = rules
        self.reader = reader
        self.path = run / RECORDS
        self.records = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
        self._pass_over(number for record in self.records for number in record["skipped"])

    def prepare(self) -> None:
        """Drop checkpoints that have read a batch which was then to be passed over: a kill came between. Worker 0."""
        firsts = [record["skipped"][0] for record in self.records if record["skipped"]]
        for step in checkpoint.steps(self.path.parent) if firsts else []:
            path = self.path.parent / checkpoint.name_of(step)
            try:
                skipped = checkpoint.Checkpoint(path).state()["skipped"]
            except checkpoint.DamagedCheckpointError:
                continue  # whoever resumes says so
            if any(first not in skipped and number_of_batch(step, skipped) > first for first in firsts):
                checkpoint.remove(path)

    def met(self, trainer: Trainer, writer: Writer, state: Position, batch: Batch, loss: float) -> int | None:
        """Judge a step before its update. Returns the step to go on from without it: its own, or an earlier one whose
        checkpoint is then the newest. None goes on with the update. Raises SpikeError. All workers take part."""
        norm = trainer.gradient_norm(state.step)
        if self.reader.begins_phase(state.step):
            state.recent.clear()
        known = len(state.recent) >= self.rules.window_steps // 4
        z_scores = scores(state.recent, loss, norm) if known else (0.0, 0.0)
        spike = bool(agreed(float(max(z_scores) > self.rules.threshold), trainer.world))
        # With `warn` the run lives on with what it met: a level that stays is news once, not at every step after it.
        if state.step >= self.rules.warmup_steps and (not spike or self.rules.policy == "warn"):
            state.recent.append((loss, norm))
            del state.recent[: -self.rules.window_steps]
        if not spike:
            return None
        figures = {"loss": loss, "gradient_norm": norm, "loss_z": z_scores[0], "gradient_norm_z": z_scores[1]}
        num_skips = sum(bool(record["skipped"]) for record in self.records)
        skips = self.rules.policy == "skip" and num_skips < self.rules.max_skips
        back_to, skipped = self._way_back(trainer.world, writer, state.step) if skips else (state.step, [])
        record = self._record(trainer, state.step, batch, figures | {"skipped": skipped})
        self._write(record, trainer.world)
        line = _line(record)
        trainer.note(line)
        if not skips and self.rules.policy != "warn":
            raise SpikeError(
                f"{line}{f', after {num_skips} that were skipped' if num_skips else ''}; look at its documents, then "
                "leave some out (pretrain.skip), lower pretrain.rates, or choose another pretrain.spikes.policy"
            )
        self._pass_over(skipped)
        state.skipped[:] = self.reader.skipped
        if trainer.world.rank == 0:
            for newer in (each for each in checkpoint.steps(self.path.parent) if each > back_to):
                checkpoint.remove(self.path.parent / checkpoint.name_of(newer))
        return back_to if skips else None

    def _way_back(self, world: World, writer: Writer, step: int) -> tuple[int, list[int]]:
        """The step to go on from, and the batches to pass over from there."""
        skipped = self.reader.skipped
        number = number_of_batch(step, skipped)
        first = max(0, number - self.rules.rewind_batches)
        stop = max(first + self.rules.skip_batches, number + 1)
        back_to = step
        while back_to > 0 and number_of_batch(back_to, skipped) > first:
            back_to -= 1
        if back_to < step:
            writer.wait()
            kept = checkpoint.steps(self.path.parent)
            nearest = max((each for each in kept if each <= back_to), default=min(kept, default=step))
            back_to = int(agreed(float(min(nearest, step)), world))
            first = max(first, number_of_batch(back_to, skipped))
        return back_to, [each for each in range(first, stop) if each not in skipped]

    def _record(self, trainer: Trainer, step: int, batch: Batch, figures: dict[str, Any]) -> dict[str, Any]:
        rows = self.reader.documents(step, batch.labels.shape)
        totals = by_document(rows, batch.labels, trainer.token_nats(batch), trainer.world)[: self.rules.top_documents]
        names = self.reader.ids(totals[:, 0].astype(np.int64).tolist())
        return {
            "step": step,
            "batch": number_of_batch(step, self.reader.skipped),
            **figures,
            "samples": self.reader.described(step),
            "documents": [
                {"id": name, "tokens": int(tokens), "nats_per_token": round(nats / tokens, 6)}
                for name, (_, tokens, nats) in zip(names, totals.tolist(), strict=True)
            ],
        }

    def _pass_over(self, numbers: Iterable[int]) -> None:
        self.reader.skipped[:] = sorted({*self.reader.skipped, *numbers})

    def _write(self, record: dict[str, Any], world: World) -> None:
        """Once for each step and batch: a run that was killed meets again the spikes behind its checkpoint."""
        key = (record["step"], record["batch"])
        if key in [(each["step"], each["batch"]) for each in self.records]:
            return
        self.records.append(record)
        if world.rank == 0:
            aside = self.path.with_suffix(".part")
            with aside.open("w") as file:
                file.writelines(json.dumps(each) + "\n" for each in self.records)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path)


def _line(record: dict[str, Any]) -> str:
    first = record["documents"][0]
    done = f"; batches passed over: {len(record['skipped'])}" if record["skipped"] else ""
    return (
        f"spike at step {record['step']}, batch {record['batch']}: loss {record['loss']:.3f} (z {record['loss_z']:.1f})"
        f", gradient norm {record['gradient_norm']:.3g} (z {record['gradient_norm_z']:.1f}); first document "
        f"{first['id'][:12]}, {first['tokens']} tokens at {first['nats_per_token']:.2f} nats{done}"
    )
