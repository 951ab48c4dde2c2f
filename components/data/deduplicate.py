"""Exact and near duplicates: which documents repeat others, which of them stay, and which belong together.

Exact: equal ids, so equal texts. Near: MinHash over the set of word shingles (Broder 1997), candidates by LSH bands
(Indyk and Motwani 1998), every candidate pair checked on its signatures, clusters by connected components. A document
is dropped only when it is near a document that stays: the ends of a chain of pairs need not be alike.
Not covered: duplicates in meaning; documents with fewer words than a shingle.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rensa import RMinHash

Hashes = NDArray[np.uint64]
Signatures = NDArray[np.uint32]

# Odd, so that its powers have inverses modulo 2**64. Fixed: signatures are compared across runs and machines.
_BASE = np.uint64(0x9E3779B97F4A7C15)
_BASE_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))


def first_occurrences(ids: pl.Series) -> pl.Series:
    """True where an id appears for the first time, shape (rows,)."""
    return ids.is_first_distinct()


def word_hashes(texts: list[str]) -> tuple[Hashes, NDArray[np.int64]]:
    """Hashes of the words of every text, shape (W,), and where each text's words start, shape (rows + 1,).

    A word is a run of ASCII letters, digits and underscores, or of other than ASCII. Its hash is a polynomial of its
    bytes modulo 2**64, from differences of one running sum over all texts, so no word becomes a Python object.
    """
    joined = np.frombuffer("\n".join([*texts, ""]).encode(), dtype=np.uint8)
    if not texts:
        return np.zeros(0, np.uint64), np.zeros(1, np.int64)
    inside = _WORD_BYTES[joined]
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    powers = _powers(_BASE, joined.size + 1)
    total = np.zeros(joined.size + 1, np.uint64)
    np.cumsum((joined.astype(np.uint64) + np.uint64(1)) * powers[:-1], out=total[1:])
    hashes = (total[ends] - total[starts]) * _powers(_BASE_INVERSE, joined.size + 1)[starts]
    limits = np.cumsum([0, *(len(text.encode()) + 1 for text in texts)])
    return _mix(hashes), np.searchsorted(starts, limits)


def shingle_hashes(texts: list[str], shingle_tokens: int) -> tuple[Hashes, NDArray[np.int64]]:
    """Hashes of every run of `shingle_tokens` words within a text, shape (S,), and offsets, shape (rows + 1,)."""
    words, offsets = word_hashes(texts)
    if words.size < shingle_tokens:
        return np.zeros(0, np.uint64), np.zeros(len(texts) + 1, np.int64)
    count = words.size - shingle_tokens + 1
    shingles = np.zeros(count, np.uint64)
    for place in range(shingle_tokens):
        shingles = _mix(shingles * _BASE + words[place : place + count])
    lengths = np.maximum(np.diff(offsets) - shingle_tokens + 1, 0)
    row = np.repeat(np.arange(len(texts)), np.diff(offsets))[:count]
    whole = np.arange(count) + shingle_tokens <= offsets[1:][row]
    return shingles[whole], np.concatenate([[0], np.cumsum(lengths)])


def signatures(texts: list[str], *, shingle_tokens: int, num_permutations: int, seed: int) -> Signatures:
    """MinHash signatures, shape (rows, num_permutations); a text without a shingle has the largest value throughout."""
    hashes, offsets = shingle_hashes(texts, shingle_tokens)
    if not texts:
        return np.zeros((0, num_permutations), np.uint32)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), num_permutations, seed)
    return np.asarray(matrix.to_rows(), dtype=np.uint32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """Near duplicates among N documents: `cluster` is the first row of each one's cluster; `kept` is, for a dropped
    row, the row that stays in its place, and for a row that stays itself. Both have shape (N,)."""

    cluster: NDArray[np.int64]
    kept: NDArray[np.int64]


def near_duplicates(matrix: Signatures, rank: NDArray[np.int64], *, rows_per_band: int, similarity: float) -> Near:
    """Clusters of near duplicates and who stays, from signatures, shape (N, num_permutations).

    `rank` orders the documents by preference, 0 first: within a cluster they are taken in that order, and one is
    dropped when its estimated Jaccard similarity with one that stays is at least `similarity`.
    """
    count = len(matrix)
    pairs = similar_pairs(matrix, rows_per_band=rows_per_band, similarity=similarity)
    cluster = connected_components(pairs, count)
    kept = np.arange(count)
    members = np.unique(pairs)
    for group in _groups(cluster[members], members):
        staying: list[int] = []
        for row in group[np.argsort(rank[group], kind="stable")]:
            alike = (matrix[staying] == matrix[row]).mean(axis=1) >= similarity if staying else np.zeros(0, bool)
            if alike.any():
                kept[row] = staying[int(alike.argmax())]
            else:
                staying.append(int(row))
    return Near(cluster=cluster, kept=kept)


def connected_components(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The smallest row that each of `count` rows is connected with, shape (count,), by hooking and pointer jumping."""
    label = np.arange(count)
    while True:
        low = np.minimum(label[pairs[:, 0]], label[pairs[:, 1]])
        hooked = label.copy()
        for side in (0, 1):
            np.minimum.at(hooked, label[pairs[:, side]], low)
            np.minimum.at(hooked, pairs[:, side], low)
        hooked = hooked[hooked]
        if np.array_equal(hooked, label):
            return label
        label = hooked


def similar_pairs(matrix: Signatures, *, rows_per_band: int, similarity: float) -> NDArray[np.int64]:
    """Pairs of rows whose estimated similarity is at least `similarity`, sorted, shape (P, 2).

    Candidates share a band. A bucket of k rows is not compared in all k * (k - 1) / 2 pairs: its first row is compared
    with all, then the first of those that it is not similar to, and so on, which links all that are alike.
    """
    found = []
    usable = np.flatnonzero((matrix != np.iinfo(np.uint32).max).any(axis=1))
    for start in range(0, matrix.shape[1], rows_per_band):
        band = np.ascontiguousarray(matrix[usable, start : start + rows_per_band])
        keys = band.view(np.dtype((np.void, band.dtype.itemsize * rows_per_band))).ravel()
        _, bucket, sizes = np.unique(keys, return_inverse=True, return_counts=True)
        shared = sizes[bucket] > 1
        for rows in _groups(bucket[shared], usable[shared]):
            found.extend(_links(matrix, rows, similarity))
    if not found:
        return np.zeros((0, 2), np.int64)
    return np.unique(np.concatenate(found), axis=0)


def _links(matrix: Signatures, rows: NDArray[np.int64], similarity: float) -> list[NDArray[np.int64]]:
    """Similar pairs (smaller row, larger row) of one bucket, by leaders."""
    links, todo = [], np.sort(rows)
    while len(todo) > 1:
        leader, others = todo[0], todo[1:]
        alike = (matrix[others] == matrix[leader]).mean(axis=1) >= similarity
        links.append(np.stack([np.full(int(alike.sum()), leader), others[alike]], axis=1).astype(np.int64))
        todo = others[~alike]
    return links


def _groups(labels: NDArray[np.integer], rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each label, by label, rows in their order."""
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    return np.split(rows[order], cuts) if len(rows) else []


def _powers(base: np.uint64, count: int) -> Hashes:
    """base ** 0, base ** 1, ... modulo 2**64, shape (count,)."""
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


def _mix(values: Hashes) -> Hashes:
    """A bijection that spreads every bit over all 64 (the finalizer of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _word_bytes() -> NDArray[np.bool_]:
    inside = np.zeros(256, bool)
    inside[list(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")] = True
    inside[128:] = True
    return inside


_WORD_BYTES = _word_bytes()
