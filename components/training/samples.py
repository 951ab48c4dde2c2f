"""Which samples a worker reads at each step: the order of tokens, and what the objectives make of a window."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.tokens.order import places_of_step, samples_at
from components.tokens.special import END_OF_TEXT_ID, FIM_MIDDLE_ID, FIM_PREFIX_ID, FIM_SUFFIX_ID
from components.tokens.store import TokenStore
from components.training.batch import Batch, next_token_batch
from components.training.objectives import FillTokens, window_with_fills
from components.training.work import Work

FILL = FillTokens(prefix=FIM_PREFIX_ID, suffix=FIM_SUFFIX_ID, middle=FIM_MIDDLE_ID, end=END_OF_TEXT_ID)


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

    def __call__(self, step: int) -> Batch:
        """A pure function of the step and of what is skipped."""
        config, plan = self.work.config, self.work.plan
        places = places_of_step(number_of_batch(step, self.skipped), plan.batch_samples, self.rank, self.world_size)
        epochs, samples = samples_at(places, self.num_samples, config.seed)
        rows = []
        for epoch, sample in zip(epochs.tolist(), samples.tolist(), strict=True):
            start = sample * self.length
            window: NDArray[np.int64] = self.store.read(start, start + self.length + 1).astype(np.int64)
            rows.append(window_with_fills(window, config.fim_rate, FILL, config.seed, epoch, sample))
        return next_token_batch(np.stack(rows))


def number_of_batch(step: int, skipped: Sequence[int]) -> int:
    """The batch that a step reads when some batches, in rising order, are passed over."""
    number = step
    for each in skipped:
        if each > number:
            break
        number += 1
    return number
