"""Which near-duplicate clusters are held out, and which held-out documents a figure is measured on: pure functions.

A document and its near duplicates have one cluster id, so they land on one side; a document that joins or leaves the
corpus moves no other.
"""

import hashlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

# Of a sample's bytes, the most that one document may hold.
LARGEST_SHARE = 0.1


def draw(name: str, seed: int, purpose: str) -> float:
    """A number in [0, 1) that depends on its arguments alone, uniform over names.

    Draws for different purposes are independent: without the purpose, a subset of the corpus that was itself taken by
    the lowest hashes would lie on one side of every later draw (a validation share of 0.04 became 0.43 that way).
    """
    return int.from_bytes(hashlib.sha256(f"{purpose}:{seed}:{name}".encode()).digest()[:6]) / 2**48


def is_validation(clusters: pl.Series, fraction: float, seed: int) -> pl.Series:
    """True where a document's cluster is held out, shape (documents,) as the cluster ids."""
    names = clusters.unique().sort()
    held_out = [name for name in names.to_list() if draw(name, seed, "validation") < fraction]
    return clusters.is_in(held_out).rename("validation")


def sample_of(num_bytes: NDArray[np.int64], limit_bytes: int, seed: int) -> NDArray[np.int64]:
    """Indices of documents drawn by the seed until they hold `limit_bytes`, sorted; all when they do not.

    A document that alone would hold more than LARGEST_SHARE of the limit is passed over, unless every one would: a file
    of dense tables with 228 of 480 kB once set the figure of a run (1.55 bits per byte, 1.24 without it).
    """
    order = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(len(num_bytes))
    fits = num_bytes[order] <= LARGEST_SHARE * limit_bytes
    order = order[fits] if fits.any() else order
    count = int(np.searchsorted(np.cumsum(num_bytes[order]), limit_bytes)) + 1
    return np.sort(order[:count])
