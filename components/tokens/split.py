"""Which near-duplicate clusters are held out: a pure function of the cluster's id and the seed.

A document and its near duplicates have one cluster id, so they land on one side; a document that joins or leaves the
corpus moves no other.
"""

import hashlib

import polars as pl


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
