"""Training windows of the token files, and which of them is read where in a run: a pure function both ways.

A window is T + 1 tokens of one source; neighbours share one token, so that each is predicted once. Windows are numbered
through the sources, in the order of the tokens. Without a mixture all tokens are one source without a name, read in the
one order of components.tokens.shards.order. Tokens behind the last whole window of a source are in none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.tokens.shards.order import places_of_samples, samples_at
from components.tokens.shards.source_mixture import Mixture, Phase, stream_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Tokens [start, stop) of a split come from one source."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What is read at some places, all of shape (places,): number of the source, epoch of that source, window."""

    sources: NDArray[np.int64]
    epochs: NDArray[np.int64]
    windows: NDArray[np.int64]


class Windows:
    """The windows of length T of a split, and the order in which a run reads them.

    sources     in the order of their tokens; one without a name, or those that the phases name
    phases      weights of the sources by the place from which they hold; None reads all tokens as one stream
    """

    def __init__(self, sources: Sequence[Source], length: int, phases: Sequence[Phase] | None, seed: int) -> None:
        """Raises ValueError for phases that do not fit the sources, or a source in use without one window."""
        if phases is None:
            sources = [Source(name="", start=sources[0].start, stop=sources[-1].stop)]
            phases = [Phase(first_place=0, weights={"": 1.0})]
        self.names = [each.name for each in sources]
        self.length = length
        self.seed = seed
        self.starts = np.array([each.start for each in sources], dtype=np.int64)
        self.stops = np.array([each.stop for each in sources], dtype=np.int64)
        self.counts = np.maximum(0, (self.stops - self.starts - 1) // length)
        self.firsts = np.cumsum(self.counts) - self.counts
        self.mixture = Mixture(self.names, phases, seed)
        for name, count, shares in zip(self.names, self.counts.tolist(), self.mixture.shares.T, strict=True):
            if not count and shares.any():
                raise ValueError(f"the tokens{' of ' * bool(name)}{name} are not one window of {length}; weigh it 0")

    def at(self, places: NDArray[np.int64]) -> Read:
        """What is read at places of the run."""
        sources, numbers = self.mixture.at(places)
        epochs, windows = np.empty_like(places), np.empty_like(places)
        for source in np.unique(sources).tolist():
            here = sources == source
            epochs[here], samples = samples_at(numbers[here], int(self.counts[source]), self.seed, self._stream(source))
            windows[here] = self.firsts[source] + samples
        return Read(sources=sources, epochs=epochs, windows=windows)

    def places_of(self, windows: NDArray[np.int64], num_places: int) -> NDArray[np.int64]:
        """Where any of these windows is read in a run of so many places, in the order of the run: the inverse of `at`.

        Raises ValueError for a window that there is not.
        """
        places_per_source = self.mixture.counts(num_places)
        owners = self.source_of(windows)
        places = [np.zeros(0, dtype=np.int64)]
        for source in np.unique(owners).tolist():
            samples = windows[owners == source] - self.firsts[source]
            count, stream = int(self.counts[source]), self._stream(source)
            numbers, _ = places_of_samples(samples, count, self.seed, int(places_per_source[source]), stream)
            places.append(self.mixture.places_of(source, numbers))
        return np.sort(np.concatenate(places))

    def source_of(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the source of each window. Raises ValueError for a window that there is not."""
        outside = windows[(windows < 0) | (windows >= self.counts.sum())]
        if outside.size:
            raise ValueError(f"found window {outside[0]} of {self.counts.sum()}")
        return np.searchsorted(self.firsts + self.counts, windows, side="right")

    def first_tokens(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first token of each window; its last one is T further on."""
        sources = self.source_of(windows)
        return np.asarray(self.starts[sources] + (windows - self.firsts[sources]) * self.length)

    def holding(self, start: int, end: int) -> range:
        """The windows that hold any of the tokens [start, end) of one source, as context or as target."""
        source = int(np.searchsorted(self.stops, start, side="right"))
        first_token, count = int(self.starts[source]), int(self.counts[source])
        first = max(0, -(-(start - first_token) // self.length) - 1)
        stop = min(count, (end - 1 - first_token) // self.length + 1)
        begin = int(self.firsts[source])
        return range(begin + first, begin + max(first, stop))

    def _stream(self, source: int) -> int:
        return stream_of(self.names[source])
