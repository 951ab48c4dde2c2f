"""Which sample is read at which place of a run: a pure function of seed and number of samples, in O(1) memory.

Place p of the run (an integer that grows by one per sample, whatever the number of workers) belongs to epoch
p // num_samples and reads sample permute(p % num_samples, key of that epoch). Where sources are mixed, each is a stream
of its own, and p the place in it (components.tokens.shards.source_mixture). The permutation is a balanced Feistel
network on the next even number of bits, walked until it falls inside (Black and Rogaway 2002, "Ciphers with arbitrary
finite domains", cycle walking), so nothing is shuffled, stored or restored.
"""

import numpy as np
from numpy.typing import NDArray

from components.core.hashing import mix

ROUNDS = 6


def samples_at(
    places: NDArray[np.int64], num_samples: int, seed: int, stream: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Epoch and sample index for places of a stream, each of shape (places,). Streams are ordered independently."""
    if num_samples < 1:
        raise ValueError(f"found {num_samples} samples, needed at least one")
    epochs, positions = np.divmod(places, num_samples)
    samples = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        samples[here] = permute(positions[here], num_samples, round_keys(seed, int(epoch), stream))
    return epochs, samples


def places_of_samples(
    samples: NDArray[np.int64], num_samples: int, seed: int, num_places: int, stream: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where samples are read in the first `num_places` places of a stream: the places in their order, and the sample
    read at each, both of shape (reads,). The inverse of samples_at: an epoch is one look-up, nothing is searched.

    Raises ValueError for a sample that there is not.
    """
    distinct = np.unique(samples)
    outside = distinct[(distinct < 0) | (distinct >= num_samples)]
    if outside.size:
        raise ValueError(f"found sample {outside[0]} of {num_samples}, needed 0 to {num_samples - 1}")
    pairs = [np.zeros((2, 0), np.int64)]
    for epoch in range(-(-num_places // num_samples) if distinct.size else 0):
        positions = inverse(distinct, num_samples, round_keys(seed, epoch, stream))
        pairs.append(np.stack([epoch * num_samples + positions, distinct]))
    places, read = np.concatenate(pairs, axis=1)
    order = np.argsort(places, kind="stable")
    order = order[places[order] < num_places]
    return places[order], read[order]


def places_of_step(step: int, batch_samples: int, rank: int = 0, world_size: int = 1) -> NDArray[np.int64]:
    """The places that one of `world_size` workers reads in a step: its contiguous share of the global batch.

    Raises ValueError unless the workers divide the batch evenly. The union over ranks is the same at any world size.
    """
    if batch_samples % world_size:
        raise ValueError(f"a batch of {batch_samples} samples cannot be shared by {world_size} workers evenly")
    share = batch_samples // world_size
    start = step * batch_samples + rank * share
    return np.arange(start, start + share, dtype=np.int64)


def permute(values: NDArray[np.int64], size: int, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """A bijection of range(size) chosen by the round keys, applied to each value."""
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    result = _feistel(values.astype(np.uint64), half_bits, keys)
    while (outside := result >= size).any():
        result[outside] = _feistel(result[outside], half_bits, keys)
    return result.astype(np.int64)


def inverse(values: NDArray[np.int64], size: int, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """What `permute` maps to each value: the rounds backwards, walked until they fall inside."""
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    result = _feistel_back(values.astype(np.uint64), half_bits, keys)
    while (outside := result >= size).any():
        result[outside] = _feistel_back(result[outside], half_bits, keys)
    return result.astype(np.int64)


def round_keys(seed: int, epoch: int, stream: int = 0) -> NDArray[np.uint64]:
    """The keys of one permutation of one stream, shape (ROUNDS,)."""
    source = np.random.Philox(key=[seed, epoch], counter=[0, 0, stream, 0])
    return np.random.Generator(source).integers(0, 2**64, size=ROUNDS, dtype=np.uint64)


def _feistel(values: NDArray[np.uint64], half_bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (mix(right ^ key) & mask)
    return (left << shift) | right


def _feistel_back(values: NDArray[np.uint64], half_bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys[::-1]:
        left, right = right ^ (mix(left ^ key) & mask), left
    return (left << shift) | right
