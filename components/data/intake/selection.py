"""Which documents of a stream enter: by weight between sources, by a seeded hash within each, in fixed memory.

A document's rank is a hash of the seed and its id: a property of its text, not of the order in which files were listed.
A source takes its documents by rank until the next would pass its share, so a larger share holds every smaller one and
copies of one text come and go together. While sources are read, their shares can only fall (what is still to come
takes from them), so a document beyond the share of the moment will never enter and need not be kept.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import polars as pl

# Bytes are counted by the first 16 bits of the rank: half a megabyte a source, and a limit that is exact to 1/65536 of
# it; the documents at the limit itself are compared one by one at the end.
_BIN_BITS = 16
_RANK_BITS = 64
NUM_BINS = 1 << _BIN_BITS
MAX_RANK = (1 << _RANK_BITS) - 1


def ranks(ids: pl.Series, seed: int) -> pl.Series:
    """The first 64 bits of sha256(seed, id) of each document, shape (rows,)."""
    digests = [int.from_bytes(hashlib.sha256(f"{seed}:{each}".encode()).digest()[:8], "big") for each in ids]
    return pl.Series("rank", digests, dtype=pl.UInt64)


def bins(ranks: pl.Series) -> pl.Series:
    """The bin that each rank is counted in, shape (rows,)."""
    return ranks // (1 << (_RANK_BITS - _BIN_BITS))


def shares(total: int, weights: Sequence[float], limits: Sequence[int]) -> list[int]:
    """A total divided by weight where nobody gets more than their limit, and what they leave goes to the others.

    The sum is at most `total`, and below it by rounding alone unless the limits together are smaller.
    """
    portions = [0] * len(weights)
    open_, rest = list(range(len(weights))), total
    while open_:
        level = rest / sum(weights[each] for each in open_)
        full = [each for each in open_ if limits[each] <= level * weights[each]]
        if not full:
            for each in open_:
                portions[each] = int(level * weights[each])
            break
        for each in full:
            portions[each] = limits[each]
            rest -= limits[each]
        open_ = [each for each in open_ if each not in full]
    return portions


class Selection:
    """What each source has offered so far, and which of its documents may still enter."""

    def __init__(self, max_bytes: int, weights: Sequence[float], caps: Sequence[int | None]) -> None:
        self.max_bytes = max_bytes
        self.found_bytes = [0] * len(weights)
        self.found_documents = [0] * len(weights)
        self._weights = weights
        self._caps = caps
        self._bytes = np.zeros((len(weights), NUM_BINS), dtype=np.int64)

    def offer(self, source: int, ranks: pl.Series, sizes: pl.Series) -> pl.Series:
        """Count documents of a source; True where one may enter, shape (rows,)."""
        where = bins(ranks)
        np.add.at(self._bytes[source], where.to_numpy(), sizes.to_numpy())
        self.found_bytes[source] += int(sizes.sum())
        self.found_documents[source] += len(ranks)
        return where <= self.last_bins()[source]

    def shares(self) -> list[int]:
        """Bytes that each source may give, from what has been found so far."""
        limits = [
            size if cap is None else min(size, cap) for size, cap in zip(self.found_bytes, self._caps, strict=True)
        ]
        return shares(self.max_bytes, self._weights, limits)

    def last_bins(self) -> list[int]:
        """The bin of each source in which its share ends; documents of later bins cannot enter."""
        return [
            int(np.searchsorted(np.cumsum(counted), share, side="right"))
            for counted, share in zip(self._bytes, self.shares(), strict=True)
        ]

    def bytes_before(self, source: int, last_bin: int) -> int:
        """Bytes that a source found in the bins before one."""
        return int(self._bytes[source, :last_bin].sum())


def rank_limit(ranks: pl.Series, sizes: pl.Series, budget: int) -> int:
    """The smallest rank that no longer fits: documents below it have at most `budget` bytes together."""
    counted = pl.DataFrame({"rank": ranks, "bytes": sizes}).group_by("rank").agg(pl.col("bytes").sum()).sort("rank")
    beyond = counted.filter(pl.col("bytes").cum_sum() > budget)
    return int(beyond["rank"][0]) if beyond.height else MAX_RANK
