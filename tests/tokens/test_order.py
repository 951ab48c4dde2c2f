"""Every sample once per epoch, at any world size, from a pure function."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tokens.order import places_of_step, samples_at


@given(st.integers(1, 3000), st.integers(0, 2**31))
def test_an_epoch_reads_each_sample_once(num_samples: int, seed: int) -> None:
    epochs, samples = samples_at(np.arange(2 * num_samples), num_samples, seed)
    assert epochs.tolist() == [0] * num_samples + [1] * num_samples
    for epoch in (0, 1):
        assert np.sort(samples[epochs == epoch]).tolist() == list(range(num_samples))


@settings(max_examples=30)
@given(st.integers(2, 500), st.integers(0, 1000), st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_workers_share_the_very_batch_of_one_worker(num_samples: int, step: int, world_size: int) -> None:
    whole = places_of_step(step, 12)
    shared = np.concatenate([places_of_step(step, 12, rank, world_size) for rank in range(world_size)])
    assert shared.tolist() == whole.tolist()
    assert samples_at(whole, num_samples, 7)[1].tolist() == samples_at(shared, num_samples, 7)[1].tolist()


def test_orders_differ_between_seeds_and_epochs_and_look_shuffled() -> None:
    places = np.arange(10_000)
    _, first = samples_at(places, 10_000, 0)
    _, other = samples_at(places, 10_000, 1)
    _, second = samples_at(places + 10_000, 10_000, 0)
    for one, two in ((first, other), (first, second), (first, places)):
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.05
        assert (one == two).mean() < 0.002
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.05


def test_impossible_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="batch of 8 samples cannot be shared by 3 workers"):
        places_of_step(0, 8, 0, 3)
    with pytest.raises(ValueError, match="found 0 samples"):
        samples_at(np.arange(3), 0, 0)
