"""Pretraining windows among those of fine-tuning, so that the base's abilities stay: the next token and infilling, or
an encoder-decoder's denoising.

Windows are drawn from the training split in an order of their own; the same for the same seed.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.tokens.shards.order import samples_at
from components.tokens.shards.token_store import Split, TokenStore
from components.training.engine.batches.batch import Batch
from components.training.parameters.objectives import Infill, ObjectivesConfig
from components.training.run.objective_mixture import mixture_of


class Windows:
    """Windows of a split of the token files, infilled at a rate."""

    def __init__(
        self,
        tokens: Path,
        tokenizer: Path,
        *,
        split: Split,
        length: int,
        infill_rate: float,
        seed: int,
        denoising: ObjectivesConfig | None = None,
    ) -> None:
        """`length` positions of a window (of an encoder-decoder, its encoder's). Raises DataError for a tokenizer that
        cannot infill or denoise.

        denoising   what pretraining asks of an encoder-decoder; None for a decoder
        """
        self.store = TokenStore(tokens, split)
        self.length = length
        self.seed = seed
        self.number = max(0, (self.store.num_tokens - 1) // length)
        objectives = denoising or ObjectivesConfig(infill=Infill(rate=infill_rate))
        self.mixture = mixture_of(objectives, "encoder-decoder" if denoising else "decoder", tokenizer, seed)

    def batch(self, places: Sequence[int]) -> Batch:
        """The windows at some places of the order, `length` positions each."""
        epochs, windows = samples_at(np.array(places), self.number, self.seed)
        firsts = (windows * self.length).tolist()
        tokens = np.stack([self.store.read(each, each + self.length + 1) for each in firsts]).astype(np.int64)
        return self.mixture.batch(tokens, epochs.tolist(), windows.tolist(), np.zeros(len(places), np.int64))
