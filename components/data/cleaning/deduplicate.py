"""Exact and near duplicates: which documents repeat others, which of them stay, and which belong together.

Exact: equal ids, so equal texts. Near: an exact Jaccard similarity of at least `similarity` between the sets of word
shingles (Broder 1997). Candidates by MinHash and LSH bands (Indyk and Motwani 1998), those whose signatures are too
far apart sorted out, the rest compared by their sets; clusters are connected components. A document is dropped only
when it is near a document that stays: the ends of a chain of pairs need not be alike.

Two documents of similarity s share a band, and are looked at, with probability 1 - (1 - s^r)^b, where b bands have r
values each. The default, 32 bands of 4 values, gives

    s            0.3    0.5    0.6    0.7     0.75    0.8      0.9
    probability  0.229  0.873  0.988  0.9998  1.0000  1.0000   1.0000

so above a similarity of 0.7 nothing to speak of is missed, and what comes along below costs a look at two signatures.
Not covered: duplicates in meaning; documents with fewer words than a shingle; blocks that two documents share.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rensa import RMinHash

from components.core.hashing import mix
from components.data.config import DuplicateConfig
from components.data.documents.licences import refused

Hashes = NDArray[np.uint64]
Signatures = NDArray[np.uint32]
Rows = NDArray[np.int64]

# Odd, so that its powers have inverses modulo 2**64. Fixed: signatures are compared across runs and machines.
_BASE = np.uint64(0x9E3779B97F4A7C15)
_BASE_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
# Texts that are hashed in one go: the arrays of that many bytes stay in a core's cache (250 MB/s; 16 MB in one go: 16
# MB/s), and a worker's memory does not grow with its task.
_CHUNK_CHARACTERS = 100_000
# The low bits of a band's hash say which band it is.
_BAND_BITS = 10
# Standard errors by which a pair's estimated similarity may fall short before its sets are compared.
MARGIN_ERRORS = 3.0
# A bucket of more rows is not compared in all pairs but through leaders; at most this many leaders.
ALL_PAIRS_ROWS = 64
_MAX_LEADERS = 64
_PAIRS_AT_ONCE = 16_384


def word_hashes(texts: Sequence[str]) -> tuple[Hashes, Rows]:
    """Hashes of the words of every text, shape (W,), and where each text's words start, shape (rows + 1,).

    A word is a run of ASCII letters, digits and underscores, or of other than ASCII. Its hash is a polynomial of its
    bytes modulo 2**64, from differences of one running sum over many texts, so no word becomes a Python object.
    """
    hashes, counts = [np.zeros(0, np.uint64)], [np.zeros(1, np.int64)]
    for chunk in _chunks(texts):
        chunk_hashes, offsets = _word_hashes(chunk)
        hashes.append(chunk_hashes)
        counts.append(np.diff(offsets))
    return np.concatenate(hashes), np.cumsum(np.concatenate(counts))


def shingle_hashes(texts: Sequence[str], shingle_tokens: int) -> tuple[Hashes, Rows]:
    """Hashes of every run of `shingle_tokens` words within a text, shape (S,), and offsets, shape (rows + 1,)."""
    hashes, counts = [np.zeros(0, np.uint64)], [np.zeros(1, np.int64)]
    for chunk in _chunks(texts):
        chunk_hashes, offsets = _shingles(*_word_hashes(chunk), shingle_tokens)
        hashes.append(chunk_hashes)
        counts.append(np.diff(offsets))
    return np.concatenate(hashes), np.cumsum(np.concatenate(counts))


def signatures(texts: Sequence[str], *, shingle_tokens: int, num_permutations: int, seed: int) -> Signatures:
    """MinHash signatures, shape (rows, num_permutations); a text without a shingle has the largest value throughout."""
    matrix = np.empty((len(texts), num_permutations), np.uint32)
    row = 0
    for chunk in _chunks(texts):
        hashes, offsets = _shingles(*_word_hashes(chunk), shingle_tokens)
        digests = RMinHash.digest_matrix_from_flat_token_hashes(
            hashes, offsets.astype(np.uint64), num_permutations, seed
        )
        matrix[row : row + len(chunk)] = digests.to_rows()
        row += len(chunk)
    return matrix


def shingle_sets(texts: Sequence[str], shingle_tokens: int) -> list[Hashes]:
    """The set of shingles of every text, as sorted distinct hashes."""
    hashes, offsets = shingle_hashes(texts, shingle_tokens)
    return [np.unique(hashes[start:stop]) for start, stop in pairwise(offsets)]


def jaccard(first: Hashes, second: Hashes) -> float:
    """|A and B| / |A or B| of two sorted sets of distinct hashes; 0 for two empty ones."""
    if not len(first) or not len(second):
        return 0.0
    both = np.concatenate([first, second])
    both.sort()
    common = int((both[1:] == both[:-1]).sum())
    return common / (len(both) - common)


def candidate_probability(similarity: float, *, num_permutations: int, rows_per_band: int) -> float:
    """The S-curve: how likely two documents of this Jaccard similarity share a band (Leskovec 2014, 3.4.2)."""
    bands = num_permutations // rows_per_band
    return float(1 - (1 - similarity**rows_per_band) ** bands)


def estimate_bound(similarity: float, num_permutations: int) -> float:
    """The estimated similarity from which a pair's sets are compared: MARGIN_ERRORS standard errors below the bound,
    under which 1 in 700 pairs falls whose similarity is just the bound, and fewer of those above it."""
    error = (similarity * (1 - similarity) / num_permutations) ** 0.5
    return float(similarity - MARGIN_ERRORS * error)


def band_hashes(matrix: Signatures, rows_per_band: int) -> tuple[Hashes, Rows]:
    """A hash for each band of each row that has a shingle, sorted, shape (N * bands,), and the row of each.

    Rows agree in a band when they agree in a hash; two that do not differ in their hash with probability 1 - 2**-54.
    """
    usable = np.flatnonzero((matrix != np.iinfo(np.uint32).max).any(axis=1))
    count = matrix.shape[1] // rows_per_band
    values = matrix[usable].astype(np.uint64).reshape(len(usable), count, rows_per_band)
    hashes = np.arange(count, dtype=np.uint64) + np.uint64(1)
    for place in range(rows_per_band):
        hashes = mix(hashes * _BASE + values[:, :, place])
    low = np.uint64((1 << _BAND_BITS) - 1)
    hashes = ((hashes & ~low) | np.arange(count, dtype=np.uint64)).ravel()
    order = np.argsort(hashes, kind="stable")
    return hashes[order], np.repeat(usable, count)[order]


def near_pairs(
    hashes: Hashes, rows: Rows, matrix: Signatures, rank: Rows, *, rows_per_band: int, bound: float
) -> Iterator[Rows]:
    """Pairs of rows that share a band and whose estimated similarity is at least `bound`, in pieces of shape (P, 2).

    `hashes` are some of band_hashes, sorted, all or none of those that are equal; `rows` are theirs, into `matrix`. A
    pair comes from its first common band alone, so the bands can be worked on apart. A bucket of more than
    ALL_PAIRS_ROWS rows is compared through leaders, by `rank`, 0 first: the best is compared with all, then the best of
    those that it is not near to, and so on. That links the documents to those that they are dropped for.
    """
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])) if len(hashes) else np.zeros(0, int)
    sizes = np.diff(np.append(starts, len(hashes)))
    small = np.repeat(sizes <= ALL_PAIRS_ROWS, sizes)
    bands = (hashes & np.uint64((1 << _BAND_BITS) - 1)).astype(np.int64)
    for distance in range(1, ALL_PAIRS_ROWS):
        places = np.flatnonzero((hashes[distance:] == hashes[:-distance]) & small[distance:])
        if not len(places):
            break
        for start in range(0, len(places), _PAIRS_AT_ONCE):
            one = places[start : start + _PAIRS_AT_ONCE]
            pairs = np.stack([rows[one], rows[one + distance]], axis=1)
            equal = matrix[pairs[:, 0]] == matrix[pairs[:, 1]]
            first = equal.reshape(len(pairs), -1, rows_per_band).all(axis=2).argmax(axis=1)
            yield pairs[(equal.mean(axis=1) >= bound) & (first == bands[one])]
    for start, size in zip(starts[sizes > ALL_PAIRS_ROWS], sizes[sizes > ALL_PAIRS_ROWS], strict=True):
        yield from _leader_pairs(matrix, rows[start : start + size], rank, bound)


def _leader_pairs(matrix: Signatures, rows: Rows, rank: Rows, bound: float) -> Iterator[Rows]:
    todo = rows[np.argsort(rank[rows], kind="stable")]
    for _ in range(_MAX_LEADERS):
        if len(todo) < 2:
            return
        leader, others = todo[0], todo[1:]
        alike = (matrix[others] == matrix[leader]).mean(axis=1) >= bound
        near = others[alike]
        yield np.stack([np.minimum(leader, near), np.maximum(leader, near)], axis=1)
        todo = others[~alike]


def connected_components(pairs: Rows, count: int) -> Rows:
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


def staying(pairs: Rows, rank: Rows) -> Rows:
    """Who stays in each row's place, shape (count,): itself, or, for one that goes, the best near it that stays.

    As if the rows came in the order of `rank` (0 first, all different) and each went that is near one that stayed
    before. In rounds: whoever has no better neighbour left stays, and its neighbours go.
    """
    kept = np.arange(len(rank))
    better = np.where(rank[pairs[:, 0]] < rank[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    worse = pairs.sum(axis=1) - better
    stays, open_rows = np.zeros(len(rank), bool), np.ones(len(rank), bool)
    while open_rows.any():
        blocked = np.zeros(len(rank), bool)
        blocked[worse[open_rows[better] & open_rows[worse]]] = True
        fresh = open_rows & ~blocked
        stays |= fresh
        open_rows &= ~fresh
        open_rows[worse[fresh[better]]] = False
    best = np.full(len(rank), len(rank))
    gone = stays[better] & ~stays[worse]
    np.minimum.at(best, worse[gone], rank[better[gone]])
    by_rank = np.argsort(rank)
    kept[~stays] = by_rank[best[~stays]]
    return kept


def preference(documents: pl.DataFrame, config: DuplicateConfig) -> Rows:
    """The rank of each document (id, path, licence, source, bytes) as the one to stay, 0 first, shape (rows,).

    By the criteria of `keep` in their order; what they leave open goes to the smaller id, then the smaller path.
    """
    sources = {name: place for place, name in enumerate(config.sources)}
    licences = {each: licence_rank(each, config.licences) for each in documents["licence"].drop_nulls().unique()}
    keys = {
        "licence": pl.col("licence").replace_strict(licences, default=len(config.licences), return_dtype=pl.Int64),
        "source": pl.col("source").replace_strict(sources, default=len(sources), return_dtype=pl.Int64),
        "longest": -pl.col("bytes"),
        "shortest_path": pl.col("path").str.len_chars().cast(pl.Int64),
    }
    order = documents.with_row_index("row").sort([*(keys[each] for each in config.keep), "id", "path"])["row"]
    rank = np.empty(documents.height, np.int64)
    rank[order.to_numpy()] = np.arange(documents.height)
    return rank


def licence_rank(expression: str, order: tuple[str, ...]) -> int:
    """The place of a licence expression in an order of preference: `A OR B` counts as the better, `A AND B` as the
    worse of the two; what is not in the order, or no expression, comes after all of it."""
    for place in range(len(order)):
        try:
            if not refused(expression, order[: place + 1]):
                return place
        except ValueError:
            break
    return len(order)


def _chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Consecutive texts of about _CHUNK_CHARACTERS together."""
    start, characters = 0, 0
    for row, text in enumerate(texts):
        characters += len(text)
        if characters >= _CHUNK_CHARACTERS:
            yield texts[start : row + 1]
            start, characters = row + 1, 0
    if start < len(texts):
        yield texts[start:]


def _word_hashes(texts: Sequence[str]) -> tuple[Hashes, Rows]:
    encoded = [text.encode() for text in texts]
    content = b"\n".join([*encoded, b""])
    joined = np.frombuffer(content, np.uint8)
    inside = np.frombuffer(content.translate(_WORD_BYTES), np.bool_)
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    if inside[0]:
        edges = np.concatenate([[0], edges])
    starts, ends = edges[::2], edges[1::2]  # the last byte is a line end, so every word has one
    powers, inverses = _powers(joined.size)
    total = np.zeros(joined.size + 1, np.uint64)
    np.multiply(joined, powers, out=total[1:])
    np.cumsum(total[1:], out=total[1:])
    hashes = (total[ends] - total[starts]) * inverses[starts]
    limits = np.cumsum([0, *map(len, encoded)]) + np.arange(len(texts) + 1)
    return mix(hashes), np.searchsorted(starts, limits)


def _shingles(words: Hashes, offsets: Rows, shingle_tokens: int) -> tuple[Hashes, Rows]:
    """The shingles of some texts' words: polynomials of their words' hashes, and offsets."""
    lengths = np.maximum(np.diff(offsets) - shingle_tokens + 1, 0)
    count = words.size - shingle_tokens + 1
    if count <= 0:
        return np.zeros(0, np.uint64), np.zeros(len(offsets), np.int64)
    powers, _ = _powers(shingle_tokens)
    shingles = np.zeros(count, np.uint64)
    for place in range(shingle_tokens):
        shingles += words[place : place + count] * powers[place]
    whole = np.ones(words.size, bool)
    for place in range(1, shingle_tokens):
        last = offsets[1:] - place
        whole[last[last >= offsets[:-1]]] = False
    return mix(shingles[whole[:count]]), np.concatenate([[0], np.cumsum(lengths)])


def _powers(count: int) -> tuple[Hashes, Hashes]:
    """The first powers of _BASE and of its inverse modulo 2**64, each of shape (count,)."""
    if count <= _POWERS.shape[1]:
        return _POWERS[0, :count], _POWERS[1, :count]
    powers, inverses = _power_table(count)
    return powers, inverses


def _power_table(count: int) -> NDArray[np.uint64]:
    table = np.repeat(np.array([[_BASE], [_BASE_INVERSE]]), count, axis=1)
    table[:, 0] = 1
    return np.cumprod(table, axis=1, dtype=np.uint64)


# For bytes.translate, which is twice as fast as an index: 1 for the bytes of words, 0 for the others.
_WORD_BYTES = bytes(byte >= 128 or chr(byte).isalnum() or byte == ord("_") for byte in range(256))
_POWERS = _power_table(4 * _CHUNK_CHARACTERS)
