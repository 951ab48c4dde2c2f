"""Sources mixed by weights that change: shares exact, every sample once per epoch of its source, and the way back."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tokens.shards.order import places_of_step, samples_at
from components.tokens.shards.source_mixture import BLOCK_PLACES, Mixture, Phase, shares_of
from components.tokens.shards.windows import Source, Windows

NAMES = ("code", "feedback", "notes")


@st.composite
def orders(draw: st.DrawFn) -> Windows:
    """Three sources of different sizes under one to three phases, some of which leave a source out."""
    sizes = [draw(st.integers(1, 300)) for _ in NAMES]
    length = draw(st.integers(1, 9))
    stops = np.cumsum([size * length + 1 + draw(st.integers(0, length - 1)) for size in sizes]).tolist()
    sources = [
        Source(name=name, start=start, stop=stop)
        for name, start, stop in zip(NAMES, [0, *stops], stops)  # noqa: B905
    ]
    firsts = sorted(draw(st.sets(st.integers(1, 5000), max_size=2)))
    weight = st.one_of(st.just(0.0), st.floats(0.1, 10))
    weights = st.tuples(weight, weight, weight).filter(any)
    phases = [Phase(first_place=place, weights=dict(zip(NAMES, draw(weights), strict=True))) for place in [0, *firsts]]
    return Windows(sources, length, phases, draw(st.integers(0, 99)))


@settings(max_examples=25, deadline=None)
@given(orders(), st.integers(1, 6000))
def test_each_sample_once_per_epoch_of_its_source_and_the_way_back(order: Windows, num_places: int) -> None:
    read = order.at(np.arange(num_places))
    assert (order.source_of(read.windows) == read.sources).all()
    for source, count in enumerate(order.counts.tolist()):
        windows, epochs = read.windows[read.sources == source], read.epochs[read.sources == source]
        assert epochs.tolist() == [number // count for number in range(len(epochs))], "epochs follow each other"
        times = Counter(zip(epochs.tolist(), windows.tolist(), strict=True))
        assert not times or max(times.values()) == 1
        whole = len(windows) // count * count
        assert (np.bincount(windows[:whole] - order.firsts[source], minlength=count) == whole // count).all()
    assert order.mixture.counts(num_places).tolist() == np.bincount(read.sources, minlength=3).tolist()
    for window in np.unique(read.windows)[:: max(1, num_places // 6)]:
        expected = np.flatnonzero(read.windows == window)
        assert order.places_of(np.array([window]), num_places).tolist() == expected.tolist()
    some = np.unique(read.windows)[:5]
    assert order.places_of(some, num_places).tolist() == np.flatnonzero(np.isin(read.windows, some)).tolist()


@settings(max_examples=40, deadline=None)
@given(orders(), st.data())
def test_shares_are_exact_in_every_whole_block(order: Windows, data: st.DataObject) -> None:
    phase = data.draw(st.integers(0, len(order.mixture.firsts) - 1))
    block = data.draw(st.integers(0, 3))
    start = int(order.mixture.firsts[phase]) + block * BLOCK_PLACES
    if phase + 1 < len(order.mixture.firsts) and start + BLOCK_PLACES > order.mixture.firsts[phase + 1]:
        return
    sources = order.at(np.arange(start, start + BLOCK_PLACES)).sources
    assert np.bincount(sources, minlength=3).tolist() == order.mixture.shares[phase].tolist()


@settings(max_examples=40, deadline=None)
@given(orders(), st.integers(0, 300), st.sampled_from([1, 2, 4]))
def test_the_global_batch_knows_no_workers(order: Windows, step: int, world_size: int) -> None:
    whole = order.at(places_of_step(step, 8))
    shared = [order.at(places_of_step(step, 8, rank, world_size)) for rank in range(world_size)]
    for name in ("sources", "epochs", "windows"):
        assert np.concatenate([getattr(each, name) for each in shared]).tolist() == getattr(whole, name).tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 2000), st.integers(1, 20), st.integers(0, 9))
def test_without_a_mixture_it_is_the_one_order_of_all_tokens(num_tokens: int, length: int, seed: int) -> None:
    if num_tokens <= length:
        return
    cut = num_tokens // 2
    sources = [Source(name="a", start=0, stop=cut), Source(name="b", start=cut, stop=num_tokens)]
    order = Windows(sources, length, None, seed)
    places = np.arange(300)
    epochs, samples = samples_at(places, (num_tokens - 1) // length, seed)
    read = order.at(places)
    assert read.windows.tolist() == samples.tolist() and read.epochs.tolist() == epochs.tolist()
    assert order.first_tokens(read.windows).tolist() == (samples * length).tolist()


@settings(max_examples=60, deadline=None)
@given(orders(), st.data())
def test_windows_that_hold_tokens_are_those_that_read_them(order: Windows, data: st.DataObject) -> None:
    source = data.draw(st.integers(0, 2))
    start = data.draw(st.integers(int(order.starts[source]), int(order.stops[source]) - 1))
    end = data.draw(st.integers(start + 1, int(order.stops[source])))
    every = np.arange(order.counts.sum())
    firsts = order.first_tokens(every)
    here = (firsts < end) & (firsts + order.length >= start) & (order.source_of(every) == source)
    assert list(order.holding(start, end)) == every[here].tolist()


def test_blocks_and_sources_are_shuffled_apart() -> None:
    mixture = Mixture(NAMES, [Phase(first_place=0, weights=dict.fromkeys(NAMES, 1.0))], 0)
    first, second = (mixture.at(np.arange(start, start + BLOCK_PLACES))[0] for start in (0, BLOCK_PLACES))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    stops = [1001, 2002]
    sources = [Source(name=name, start=stop - 1001, stop=stop) for name, stop in zip("ab", stops, strict=True)]
    read = Windows(sources, 1, [Phase(first_place=0, weights={"a": 1, "b": 1})], 0).at(np.arange(1000))
    one, other = read.windows[read.sources == 0][:400], read.windows[read.sources == 1][:400] - 1000
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.15, "two sources of one size must not be read in one order"


def test_largest_remainders() -> None:
    assert shares_of(["a", "b", "c"], {"a": 1, "b": 1, "c": 1}).tolist() == [342, 341, 341]
    assert shares_of(["a", "b"], {"a": 0.3, "b": 0.7}).tolist() == [307, 717]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1.0}, "found no weight for the source b; the tokens have: a, b"),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, "found a weight for the source c; the tokens have: a, b"),
        ({"a": 1.0, "b": -1.0}, "needed numbers from 0 on"),
        ({"a": 0.0, "b": 0.0}, "needed numbers from 0 on, one of them above"),
        ({"a": float("nan"), "b": 1.0}, "needed numbers from 0 on"),
        ({"a": 1e-4, "b": 1.0}, "the weight 0.0001 of a is less than one place in 1024"),
    ],
)
def test_weights_that_cannot_be(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shares_of(["a", "b"], weights)


def test_phases_and_sources_that_cannot_be() -> None:
    phases = [Phase(first_place=place, weights={"a": 1.0}) for place in (0, 5, 5)]
    with pytest.raises(ValueError, match="phases that start at places"):
        Mixture(["a"], phases, 0)
    sources = [Source(name="a", start=0, stop=3), Source(name="b", start=3, stop=30)]
    even = [Phase(first_place=0, weights={"a": 1.0, "b": 1.0})]
    with pytest.raises(ValueError, match="the tokens of a are not one window of 4; weigh it 0"):
        Windows(sources, 4, even, 0)
    assert Windows(sources, 4, [Phase(first_place=0, weights={"a": 0.0, "b": 1.0})], 0).counts.tolist() == [0, 6]
    with pytest.raises(ValueError, match="found window 7 of 7"):
        Windows(sources, 4, None, 0).first_tokens(np.array([7]))
