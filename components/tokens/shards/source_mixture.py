"""Which source a place of the run belongs to: weights that change over the run, exact in every block, in O(1) memory.

From the first place of a phase on, places come in blocks of 1,024. Each source has its share of a block, rounded by the
largest remainder; a permutation drawn by the seed says which places these are. The k-th place that a source gets is the
k-th of its own stream, which components.tokens.shards.order permutes: so a source gives each of its samples once per
epoch, whatever the weights are and however often they change, and the way back from a sample to its places needs no
search.
Not covered: weights that change within a block other than at the start of a phase.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.tokens.shards.order import permute, round_keys

BLOCK_PLACES = 1024
KEPT_BLOCKS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """From `first_place` on, `weights` by name of the source: they need not add up to one."""

    first_place: int
    weights: Mapping[str, float]


class Mixture:
    """Places of the run as places of the sources' own streams, and back. S sources, in the order of `names`."""

    def __init__(self, names: Sequence[str], phases: Sequence[Phase], seed: int) -> None:
        """Raises ValueError for weights that do not fit the sources, and phases that are out of order."""
        firsts = [phase.first_place for phase in phases]
        if not firsts or firsts[0] != 0 or any(after <= before for before, after in itertools.pairwise(firsts)):
            raise ValueError(f"found phases that start at places {firsts}, needed 0 first, then rising ones")
        self.seed = seed
        self.num_sources = len(names)
        self.firsts = np.array(firsts, dtype=np.int64)
        self.shares = np.stack([shares_of(names, phase.weights) for phase in phases])
        self._blocks: dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        before = [np.zeros(self.num_sources, dtype=np.int64)]
        for phase, length in enumerate(np.diff(self.firsts).tolist()):
            before.append(before[-1] + self._counts(phase, length))
        self.before = np.stack(before)  # (phases, S): what each source gave before the phase

    def at(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The source of each place, and the place in that source's stream, both of shape (places,)."""
        phases = np.searchsorted(self.firsts, places, side="right") - 1
        blocks, within = np.divmod(places - self.firsts[phases], BLOCK_PLACES)
        sources, numbers = np.empty_like(places), np.empty_like(places)
        for phase, block in np.unique(np.stack([phases, blocks]), axis=1).T.tolist():
            here = (phases == phase) & (blocks == block)
            owners, ranks = self._block(phase, block)
            owner = owners[within[here]]
            sources[here] = owner
            numbers[here] = self.before[phase][owner] + block * self.shares[phase][owner] + ranks[within[here]]
        return sources, numbers

    def places_of(self, source: int, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of the run for places in a source's stream that the run reaches, shape (places,): the inverse."""
        phases = np.searchsorted(self.before[:, source], numbers, side="right") - 1
        blocks, ranks = np.divmod(numbers - self.before[phases, source], self.shares[phases, source])
        places = np.empty_like(numbers)
        for phase, block in np.unique(np.stack([phases, blocks]), axis=1).T.tolist():
            here = (phases == phase) & (blocks == block)
            within = np.flatnonzero(self._block(phase, block)[0] == source)
            places[here] = self.firsts[phase] + block * BLOCK_PLACES + within[ranks[here]]
        return places

    def counts(self, place: int) -> NDArray[np.int64]:
        """How many of the places before this one each source has, shape (S,)."""
        phase = int(np.searchsorted(self.firsts, place, side="right")) - 1
        return np.asarray(self.before[phase] + self._counts(phase, place - int(self.firsts[phase])))

    def _counts(self, phase: int, length: int) -> NDArray[np.int64]:
        blocks, rest = divmod(length, BLOCK_PLACES)
        part = np.bincount(self._block(phase, blocks)[0][:rest], minlength=self.num_sources)
        return np.asarray(blocks * self.shares[phase] + part)

    def _block(self, phase: int, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The source of each place of a block, and how many of its places come before in it; (BLOCK_PLACES,) both."""
        layout = self._blocks.get((phase, block))
        if layout is None:
            layout = self._laid_out(phase, block)
            if len(self._blocks) >= KEPT_BLOCKS:
                self._blocks.clear()
            self._blocks[phase, block] = layout
        return layout

    def _laid_out(self, phase: int, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        places, shares = np.arange(BLOCK_PLACES), self.shares[phase]
        owners = np.repeat(np.arange(self.num_sources), shares)
        if np.count_nonzero(shares) > 1:
            owners = owners[permute(places, BLOCK_PLACES, round_keys(self.seed, block, stream_of(f"phase {phase}")))]
        ranks = np.empty_like(owners)
        ranks[np.argsort(owners, kind="stable")] = places - np.repeat(np.cumsum(shares) - shares, shares)
        return owners, ranks


def shares_of(names: Sequence[str], weights: Mapping[str, float]) -> NDArray[np.int64]:
    """Places of each source in a block, shape (S,), by the largest remainder; the earlier source where these are equal.

    Raises ValueError when names and weights differ, or a weight is below zero or too small for one place.
    """
    for listed, wanted, what in ((weights, names, "a weight for"), (names, weights, "no weight for")):
        if extra := sorted(set(listed) - set(wanted)):
            raise ValueError(f"found {what} the source {extra[0]}; the tokens have: {', '.join(sorted(names))}")
    values = np.array([weights[name] for name in names], dtype=np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
        raise ValueError(f"found weights {dict(weights)}, needed numbers from 0 on, one of them above")
    exact = values / values.sum() * BLOCK_PLACES
    shares = np.floor(exact).astype(np.int64)
    largest = np.argsort(shares - exact, kind="stable")
    shares[largest[: BLOCK_PLACES - shares.sum()]] += 1
    for name, share, value in zip(names, shares.tolist(), values.tolist(), strict=True):
        if value > 0 and share == 0:
            raise ValueError(f"the weight {value} of {name} is less than one place in {BLOCK_PLACES}; give 0, or more")
    return np.asarray(shares)


def stream_of(name: str) -> int:
    """The number that sets a stream's permutations apart from others', by its name; 0 for the one without a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) if name else 0
