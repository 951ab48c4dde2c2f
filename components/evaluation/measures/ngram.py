"""An n-gram model of the training tokens: what counting alone makes of the held-out documents.

Interpolated Kneser-Ney with one discount an order, n1 / (n1 + 2 n2) (Kneser and Ney 1995; Chen and Goodman 1999,
equation 27 and section 3): the highest order counts occurrences, each lower one how many different tokens stand before
an n-gram. The first order is interpolated with equal shares of the vocabulary, so that no token has probability 0.
kenlm has no estimator for Python, only its queries; so the counts are sorted columns here.

n-grams are hashes of 64 bits: of 10^7 different ones the chance that any two are alike is below 10^-5.
Not covered: more tokens than memory has (about 60 bytes each while counting); three discounts an order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Odd, so that a multiplication loses nothing modulo 2**64.
_BASE = np.uint64(0xD6E8FEB86659FD93)
Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The n-grams of one order, sorted by their hashes, with their counts; and the contexts of n - 1 tokens, sorted,
    with the counts of all that follows each (total) and how many different tokens do (kinds)."""

    grams: Hashes
    counts: NDArray[np.int64]
    contexts: Hashes
    totals: NDArray[np.int64]
    kinds: NDArray[np.int64]
    discount: float


class NgramModel:
    """Probabilities of tokens given at most `order` - 1 tokens before them."""

    def __init__(self, tokens: NDArray[np.integer], vocabulary_size: int, order: int = 5) -> None:
        """Count the training tokens, shape (T,), where documents stand one after another.

        Raises ValueError for fewer than `order`.
        """
        tokens = np.asarray(tokens)  # a memory map would make one of every array taken from it
        if len(tokens) < order:
            raise ValueError(f"found {len(tokens)} training tokens, needed at least {order} to count {order}-grams")
        self._uniform = 1 / vocabulary_size
        self._orders: list[Order] = []
        # Each place counts once in the highest order, each different n-gram once in the order below it.
        places = np.arange(order - 1, len(tokens))
        for length in range(order, 0, -1):
            ngrams, places = _counted(tokens, places, length)
            self._orders.insert(0, ngrams)

    def log_probs(self, sequence: Sequence[int]) -> NDArray[np.float64]:
        """Natural log of the probability of each token but the first, shape (T - 1,). Contexts are in the sequence."""
        tokens = np.asarray(sequence, dtype=np.int64)
        places = np.arange(1, len(tokens))
        probabilities = np.full(len(places), self._uniform)
        for length, order in enumerate(self._orders, start=1):
            inside = places >= length - 1
            at = places[inside]
            counts = _looked_up(order.grams, order.counts, _hashes(tokens, at, length))
            contexts = _hashes(tokens, at - 1, length - 1)
            totals = _looked_up(order.contexts, order.totals, contexts)
            kinds = _looked_up(order.contexts, order.kinds, contexts)
            own = np.maximum(counts - order.discount, 0) + order.discount * kinds * probabilities[inside]
            probabilities[inside] = np.where(totals > 0, own / np.maximum(totals, 1), probabilities[inside])
        return np.asarray(np.log(probabilities))


def _counted(tokens: NDArray[np.integer], places: NDArray[np.int64], length: int) -> tuple[Order, NDArray[np.int64]]:
    """The n-grams that end at some places, and one place of each different one."""
    hashes, ranking, starts = _ranked(_hashes(tokens, places, length))
    counts = np.diff(np.append(starts, len(hashes)))
    places = places[ranking[starts]]
    before, before_ranking, before_starts = _ranked(_hashes(tokens, places - 1, length - 1))
    ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
    order = Order(
        grams=hashes[starts],
        counts=counts,
        contexts=before[before_starts],
        totals=np.add.reduceat(counts[before_ranking], before_starts),
        kinds=np.diff(np.append(before_starts, len(before))),
        # Where nothing occurs once or nothing twice, there is nothing to estimate the unseen from.
        discount=ones / (ones + 2 * twos) if ones and twos else 0.5,
    )
    return order, places


def _ranked(hashes: Hashes) -> tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]:
    """The hashes in rising order, which one each was, and where each different one begins."""
    ranking = np.argsort(hashes)
    ranked = hashes[ranking]
    return ranked, ranking, np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))


def _hashes(tokens: NDArray[np.integer], places: NDArray[np.int64], length: int) -> Hashes:
    """A hash of the `length` tokens that end at each place; 0 for none."""
    hashes = np.zeros(len(places), dtype=np.uint64)
    for back in range(length - 1, -1, -1):
        hashes = hashes * _BASE + (tokens[places - back].astype(np.uint64) + np.uint64(1))
    return hashes


def _looked_up(names: Hashes, values: NDArray[np.int64], wanted: Hashes) -> NDArray[np.int64]:
    """The value of each wanted hash, 0 for those that are not there."""
    at = np.minimum(np.searchsorted(names, wanted), len(names) - 1)
    return np.where(names[at] == wanted, values[at], 0)
