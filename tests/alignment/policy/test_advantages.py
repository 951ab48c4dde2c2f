"""Advantages against the formulas of their papers, written out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.alignment.policy.advantages import advantages_of, gae

REWARDS = np.array([[1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5], [0.0, -2.0, 3.0, 0.25]])


def test_a_group_is_whitened_as_trl_whitens_it() -> None:
    rewards = torch.from_numpy(REWARDS)
    wanted = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    np.testing.assert_allclose(advantages_of(REWARDS, "group"), wanted.numpy(), rtol=1e-12)


def test_leave_one_out_compares_with_the_mean_of_the_others() -> None:
    wanted = [[row[place] - np.delete(row, place).mean() for place in range(len(row))] for row in REWARDS]
    np.testing.assert_allclose(advantages_of(REWARDS, "leave_one_out"), wanted, rtol=1e-12, atol=1e-15)


def test_reinforce_compares_with_the_batch() -> None:
    np.testing.assert_allclose(advantages_of(REWARDS, "reinforce"), REWARDS - REWARDS.mean(), rtol=1e-12)


@pytest.mark.parametrize("estimator", ["group", "leave_one_out"])
def test_equal_answers_teach_nothing(estimator: str) -> None:
    assert not advantages_of(REWARDS, estimator)[1].any()  # type: ignore[arg-type]


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=12), st.floats(0, 1), st.floats(0, 1)
)
def test_gae_is_the_weighted_sum_of_surprises(tokens: list[tuple[float, float]], discount: float, decay: float) -> None:
    """Schulman et al. 2016, equation 16: the sum over l of (discount * decay)^l times the surprise l tokens later."""
    rewards, values = np.array(tokens).T
    following = np.append(values[1:], 0.0)
    surprises = rewards + discount * following - values
    wanted = [
        sum((discount * decay) ** (later - place) * surprises[later] for later in range(place, len(rewards)))
        for place in range(len(rewards))
    ]
    np.testing.assert_allclose(gae(rewards, values, discount=discount, decay=decay), wanted, atol=1e-9)


def test_gae_without_decay_is_what_is_still_to_come_less_the_value() -> None:
    rewards, values = np.array([0.0, 0.0, 1.0]), np.array([0.2, 0.4, 0.9])
    np.testing.assert_allclose(gae(rewards, values, discount=1.0, decay=1.0), 1.0 - values)
