"""Which samples a worker reads at each step: the order of tokens, and what the objectives make of a window."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.tokens.shards.order import places_of_step
from components.tokens.shards.token_store import TokenStore
from components.tokens.shards.windows import Windows
from components.training.engine.batches.batch import IGNORED, Batch, number_of_batch
from components.training.engine.schedule import Schedule
from components.training.run.objective_mixture import mixture_of
from components.training.run.step_reads import windows_of_run
from components.training.run.worker_input import Work


class Samples:
    """One worker's share of every step's batch: a pure function of the step, of the batches that are skipped and of the
    step at which the schedule's decay starts.

    skipped     numbers of batches that the run passes over, in rising order: it may grow while the run goes on
    sources     names of the sources that Batch.sources numbers
    """

    def __init__(self, work: Work, rank: int, world_size: int, schedule: Schedule | None = None) -> None:
        self.store = TokenStore(work.tokens, "train")
        self.work = work
        self.rank = rank
        self.world_size = world_size
        self.schedule = schedule or Schedule(warmup_steps=0, final_share=0.0)
        self.skipped = sorted({*work.plan.skipped, *work.config.skip.numbers})
        self.sources = [each.name for each in self.store.sources]
        self.length = work.plan.sequence_length
        self.mixture = mixture_of(work.config.objectives, work.plan.shape.kind, work.tokenizer, work.config.seed)
        self.masked = self.store.rows_of(work.config.skip.documents)
        self._known: tuple[Hashable, Windows] | None = None
        self._source_stops = np.array([each.stop for each in self.store.sources])

    def __call__(self, step: int) -> Batch:
        """The samples of a step that are this worker's."""
        windows = self.windows()
        read = windows.at(self.places(step))
        firsts = windows.first_tokens(read.windows)
        tokens = np.stack([self.store.read(each, each + self.length + 1) for each in firsts.tolist()])
        sources = np.searchsorted(self._source_stops, firsts, side="right")
        batch = self.mixture.batch(tokens.astype(np.int64), read.epochs.tolist(), read.windows.tolist(), sources)
        return self._without_masked(step, batch) if len(self.masked) else batch

    def basis(self) -> Hashable:
        """What batches depend on beside their steps: one that was made on another basis may be another batch."""
        return len(self.skipped), self.schedule.decay_start_step

    def windows(self) -> Windows:
        """The order of all windows, by what is skipped and decided now."""
        basis = self.basis()
        if self._known is None or self._known[0] != basis:
            windows = windows_of_run(
                self.store.sources,
                self.work.config.mixture,
                sequence_length=self.length,
                batch_samples=self.work.plan.batch_samples,
                seed=self.work.config.seed,
                decay_start_step=self.schedule.decay_start_step,
                skipped=self.skipped,
            )
            self._known = basis, windows
        return self._known[1]

    def begins_phase(self, step: int) -> bool:
        """Whether a phase of the mixture, but the first, begins with a step's batch."""
        first = number_of_batch(step, self.skipped) * self.work.plan.batch_samples
        return step > 0 and first in self.windows().mixture.firsts.tolist()

    def described(self, step: int) -> list[dict[str, Any]]:
        """window, epoch and source of each sample of a step's global batch."""
        windows = self.windows()
        read = windows.at(self.places(step, rank=0, world_size=1))
        sources = np.searchsorted(self._source_stops, windows.first_tokens(read.windows), side="right").tolist()
        return [
            {"window": window, "epoch": epoch, "source": self.sources[source]}
            for window, epoch, source in zip(read.windows.tolist(), read.epochs.tolist(), sources, strict=True)
        ]

    def ids(self, rows: Sequence[int]) -> list[str]:
        """Ids of training documents by their rows."""
        return self.store.ids(rows)

    def places(self, step: int, rank: int | None = None, world_size: int | None = None) -> NDArray[np.int64]:
        """This worker's places of the run at a step, or those of another, shape (B,)."""
        number = number_of_batch(step, self.skipped)
        rank = self.rank if rank is None else rank
        return places_of_step(number, self.work.plan.batch_samples, rank, world_size or self.world_size)

    def documents(self, step: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Row of the document that each label of a step's batch belongs to, for labels of shape (B, T).

        Objectives leave each piece of a document where it was, so position t says of the document of token t + 1. An
        encoder-decoder's pieces are moved together: there every position gets the first document of its window.
        """
        windows = self.windows()
        firsts = windows.first_tokens(windows.at(self.places(step)).windows)
        if self.work.plan.shape.kind == "encoder-decoder":
            return np.broadcast_to(self.store.documents_at(firsts + 1)[:, None], shape)
        tokens = firsts[:, None] + np.arange(1, self.length + 1)
        return self.store.documents_at(tokens.ravel()).reshape(shape)

    def _without_masked(self, step: int, batch: Batch) -> Batch:
        """Nothing is asked for in documents that are skipped."""
        hidden = np.isin(self.documents(step, batch.labels.shape), self.masked)
        if self.work.plan.shape.kind == "encoder-decoder":
            windows = self.windows()
            firsts = windows.first_tokens(windows.at(self.places(step)).windows)
            tokens = firsts[:, None] + np.arange(self.length + 1)
            in_window = np.isin(self.store.documents_at(tokens.ravel()), self.masked).reshape(tokens.shape)
            hidden = np.asarray(hidden | in_window.any(axis=1, keepdims=True))
        return replace(batch, labels=np.where(hidden, IGNORED, batch.labels))
