"""Masked language modelling: say the tokens that were hidden, from both sides. Only numpy.

Of the chosen tokens 80 % become the mask token, 10 % another token at random and 10 % stay (Devlin et al. 2019,
arXiv:1810.04805, section 3.1); the share chosen is 30 %, ModernBERT's (Warner et al. 2024, arXiv:2412.13663), where
BERT has 15 %. Tokens that end documents are neither hidden nor asked for.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.training.engine.batches.batch import IGNORED

MASKED, RANDOM = 0.8, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Masking:
    """How tokens are hidden.

    noise      chance that a token is chosen
    mask       id of the mask token
    ordinary   ids that a random token is drawn from
    """

    noise: float
    mask: int
    ordinary: NDArray[np.int64]

    def hide(
        self, tokens: NDArray[np.int64], end: int, generator: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What the model reads and what it is asked for (IGNORED elsewhere); both in the shape of `tokens`, (T,)."""
        choice, change = generator.random((2, len(tokens)))
        others = self.ordinary[generator.integers(len(self.ordinary), size=len(tokens))]
        chosen = (choice < self.noise) & (tokens != end)
        inputs = np.where(chosen & (change < MASKED), self.mask, tokens)
        inputs = np.where(chosen & (change >= MASKED) & (change < MASKED + RANDOM), others, inputs)
        return inputs, np.where(chosen, tokens, IGNORED)
