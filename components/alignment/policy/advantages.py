"""From rewards to advantages: by how much an answer, or a token, was better than expected. Only numpy.

    group           (r - mean of its group) / (deviation of its group + 1e-4): GRPO (Shao et al. 2024, arXiv:2402.03300,
                    section 4.1.2), with the deviation of a sample as TRL has it
    leave_one_out   r - mean of the others of its group: RLOO (Ahmadian et al. 2024, arXiv:2402.14740, section 3.2; Kool
                    et al. 2019)
    reinforce       r - mean of the batch: REINFORCE (Williams 1992) with a baseline
    gae             of each token, from a critic's values (Schulman et al. 2016, arXiv:1506.02438, equation 16): PPO's

P prompts, G answers to each, T tokens of an answer.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Estimator = Literal["gae", "group", "leave_one_out", "reinforce"]
TINY = 1e-4


def advantages_of(rewards: NDArray[np.float64], estimator: Estimator) -> NDArray[np.float64]:
    """Of each answer, shape (P, G), for every estimator but gae. Of equal answers all are 0 but for reinforce's."""
    means: NDArray[np.float64] = rewards.mean(axis=1, keepdims=True)
    above: NDArray[np.float64] = rewards - means
    if estimator == "group":
        deviations: NDArray[np.float64] = rewards.std(axis=1, ddof=1, keepdims=True)
        above /= deviations + TINY
        return above
    if estimator == "leave_one_out":
        above *= rewards.shape[1] / (rewards.shape[1] - 1)
        return above
    assert estimator == "reinforce", "gae is by token"
    above += means - rewards.mean()
    return above


def gae(
    rewards: NDArray[np.float64], values: NDArray[np.float64], *, discount: float, decay: float
) -> NDArray[np.float64]:
    """Of each token, shape (T,), from its reward and its value, likewise; what follows the last token is worth 0."""
    advantages = np.zeros(len(rewards))
    following, later = 0.0, 0.0
    for place in reversed(range(len(rewards))):
        surprise = rewards[place] + discount * following - values[place]
        later = surprise + discount * decay * later
        advantages[place] = later
        following = values[place]
    return advantages
