"""Every sample once per epoch, at any world size, from a pure function."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tokens.shards.order import inverse, permute, places_of_samples, places_of_step, samples_at


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


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5000), st.integers(0, 2**63))
def test_the_inverse_undoes_the_permutation(size: int, seed: int) -> None:
    keys = np.random.default_rng(seed).integers(0, 2**64, size=6, dtype=np.uint64)
    values = np.arange(size)
    assert inverse(permute(values, size, keys), size, keys).tolist() == values.tolist()
    assert permute(inverse(values, size, keys), size, keys).tolist() == values.tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(0, 12), st.integers(0, 299), st.integers(0, 9), st.data())
def test_samples_are_found_where_the_run_read_them(
    num_samples: int, epochs: int, more: int, seed: int, data: st.DataObject
) -> None:
    wanted = np.array(data.draw(st.lists(st.integers(0, num_samples - 1), max_size=5)), dtype=np.int64)
    num_places = epochs * num_samples + more % num_samples
    places, read = places_of_samples(wanted, num_samples, seed, num_places)
    _, samples = samples_at(np.arange(num_places), num_samples, seed)
    here = np.flatnonzero(np.isin(samples, wanted))
    assert places.tolist() == here.tolist()
    assert read.tolist() == samples[here].tolist()


def test_a_sample_that_is_not_there_is_refused() -> None:
    for sample in (-1, 10):
        with pytest.raises(ValueError, match=f"found sample {sample} of 10"):
            places_of_samples(np.array([3, sample]), 10, 0, 100)


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
