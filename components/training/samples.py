"""Which samples a worker reads at each step: the order of tokens, and what the objectives make of a window."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.tokens.order import places_of_step, samples_at
from components.tokens.store import TokenStore
from components.training.batch import Batch
from components.training.mixture import mixture_of
from components.training.work import Work


class Samples:
    """One worker's share of every step's batch.

    `skipped` are numbers of batches that the run passes over, in rising order: it may grow while the run goes on.
    """

    def __init__(self, work: Work, rank: int, world_size: int, skipped: Sequence[int] = ()) -> None:
        self.store = TokenStore(work.tokens, "train")
        self.work = work
        self.rank = rank
        self.world_size = world_size
        self.skipped = skipped
        self.length = work.plan.sequence_length
        self.num_samples = (self.store.num_tokens - 1) // self.length
        self.mixture = mixture_of(work.config.objectives, work.plan.shape.kind, work.tokenizer, work.config.seed)

    def __call__(self, step: int) -> Batch:
        """A pure function of the step and of what is skipped."""
        config, plan = self.work.config, self.work.plan
        places = places_of_step(number_of_batch(step, self.skipped), plan.batch_samples, self.rank, self.world_size)
        epochs, samples = samples_at(places, self.num_samples, config.seed)
        starts = (samples * self.length).tolist()
        windows: NDArray[np.int64] = np.stack([self.store.read(each, each + self.length + 1) for each in starts])
        sources = np.zeros(len(windows), dtype=np.int64)
        return self.mixture.batch(windows.astype(np.int64), epochs.tolist(), samples.tolist(), sources)


def number_of_batch(step: int, skipped: Sequence[int]) -> int:
    """The batch that a step reads when some batches, in rising order, are passed over."""
    number = step
    for each in skipped:
        if each > number:
            break
        number += 1
    return number
