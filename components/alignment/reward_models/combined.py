"""Two rewards as one, as Llama 2 has them: safety comes first where it is in doubt (arXiv:2307.09288, section 3.2.3).

    r = safety       where the prompt is about safety, or sigmoid(safety) < threshold
    r = helpfulness  elsewhere
The logits of what is chosen are whitened over the batch, so that the pull towards the reference keeps its weight: Llama
2 writes whiten(logit(r)) with r in (0, 1), which is the score itself.
"""

import numpy as np
from numpy.typing import NDArray

SAFETY_THRESHOLD = 0.15  # filters best on Meta's safety set: precision 0.89, recall 0.55
TINY = 1e-6


def combined(
    helpfulness: NDArray[np.float64],
    safety: NDArray[np.float64],
    is_about_safety: NDArray[np.bool_],
    threshold: float = SAFETY_THRESHOLD,
) -> NDArray[np.float64]:
    """The reward of n answers from their two scores (logits), each of shape (n,)."""
    unsafe = 1 / (1 + np.exp(-safety)) < threshold
    return whitened(np.where(is_about_safety | unsafe, safety, helpfulness))


def whitened(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean 0 and deviation 1 over n scores; all 0 where they are equal."""
    apart: NDArray[np.float64] = scores - scores.mean()
    deviation = float(apart.std())
    return apart / deviation if deviation > TINY else np.zeros_like(apart)
