"""Conversations side by side in rows of one length, so that little of a batch is padding. Only numpy.

A conversation of n + 1 ids fills n positions: each says the token after it. Every conversation is a piece of its own,
which no other one attends to. Longest first into the room that is left, of a pool of those that are due.
"""

from abc import ABC, abstractmethod
from bisect import insort
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from components.alignment.examples.chat import Conversation
from components.tokens.shards.order import samples_at
from components.training.engine.batches.batch import IGNORED, Batch

POOL = 256  # conversations to choose from: 1 % of padding at rows of 256 positions


def order_of(sources: Sequence[str], weights: dict[str, float], seed: int) -> Iterator[int]:
    """Numbers of conversations without end: sources as their weights say, each shuffled anew in every epoch of its own.

    sources   of each conversation
    weights   of each source; one without a weight counts 1
    """
    members = {name: np.flatnonzero([each == name for each in sources]) for name in dict.fromkeys(sources)}
    shares = {name: weights.get(name, 1.0) for name in members}
    drawn = dict.fromkeys(shares, 0)
    while True:
        name = min(shares, key=lambda each: (drawn[each] + 1) / shares[each])
        stream = [*members].index(name)
        _, places = samples_at(np.array([drawn[name]]), len(members[name]), seed, stream)
        drawn[name] += 1
        yield int(members[name][places[0]])


class Rows(ABC):
    """Items that share rows: row r is the same whenever it is asked for. Where the order ends, empty rows
    follow."""

    def __init__(
        self,
        sizes: Sequence[tuple[int, ...]],
        order: Iterator[int],
        room: tuple[int, ...],
        pad: int,
        *,
        most: int | None = None,
    ) -> None:
        """Items of some `sizes` in rows that have so much `room`, of each kind; `most` items of a row at most."""
        assert all(size <= limit for each in sizes for size, limit in zip(each, room, strict=True)), "left out before"
        self.sizes = np.array(sizes, np.int64).reshape(len(sizes), len(room))
        self.room = room
        self.pad = pad
        self.most = most
        self._order = order
        self._pool: list[tuple[int, int]] = []  # (size of all kinds, number), smallest first
        self._rows: list[list[int]] = []

    @abstractmethod
    def batch(self, rows: Sequence[int]) -> Batch:
        """Some rows, as the engine reads them."""

    def members(self, row: int) -> list[int]:
        """Numbers of the items in a row, in their places."""
        while len(self._rows) <= row:
            self._rows.append(self._fill())
        return self._rows[row]

    def rows_of_epoch(self) -> float:
        """Rows that hold every item once, if none had padding."""
        filled = (self.sizes.sum(axis=0) / self.room).max()
        return float(filled if self.most is None else max(filled, len(self.sizes) / self.most))

    def padding_share(self, rows: int) -> float:
        """Of the positions of the first rows, those that nothing fills."""
        members = [each for row in range(rows) for each in self.members(row)]
        return float(1 - self.sizes[np.array(members, np.int64)].sum() / max(1, rows * sum(self.room)))

    def _fill(self) -> list[int]:
        row: list[int] = []
        left = np.array(self.room)
        while self.most is None or len(row) < self.most:
            while len(self._pool) < (self.most or POOL) and (number := next(self._order, None)) is not None:
                insort(self._pool, (int(self.sizes[number].sum()), number))
            place = self._best(left) if self._pool else None
            if place is None:
                break
            _, number = self._pool.pop(place)
            left -= self.sizes[number]
            row.append(number)
        return row

    def _best(self, left: NDArray[np.int64]) -> int | None:
        """Place in the pool of the largest item that fits what is left, shape (kinds,); None when none does.

        An item counts half of its shares of the rooms, less what the shares left of them differ by: 3 % of padding at
        256 + 120 positions, where the largest alone left 13 %.
        """
        sizes = self.sizes[[number for _, number in self._pool]]
        shares = (left - sizes) / self.room
        worth = (sizes / self.room).sum(axis=1) / 2 - np.ptp(shares, axis=1)
        fits = np.all(sizes <= left, axis=1)
        best: int = len(sizes) - 1 - int(np.where(fits, worth, -np.inf)[::-1].argmax())
        return best if fits[best] else None


class PackedRows(Rows):
    """Rows of conversations, for a decoder."""

    def __init__(
        self,
        conversations: Sequence[Conversation],
        order: Iterator[int],
        length: int,
        pad: int,
        *,
        alone: bool = False,
    ) -> None:
        """`length` positions of a row; no conversation may have more, and all have the same columns. `alone`: each has
        a row of its own."""
        self.conversations = conversations
        self.length = length
        super().__init__(
            [(each.positions,) for each in conversations], order, (length,), pad, most=1 if alone else None
        )

    def batch(self, rows: Sequence[int]) -> Batch:
        """Some rows, shape (rows, length)."""
        shape = (len(rows), self.length)
        inputs, labels = np.full(shape, self.pad, np.int64), np.full(shape, IGNORED, np.int64)
        positions = np.zeros(shape, np.int64)
        columns = {name: np.zeros(shape, np.float32) for name in self.conversations[0].columns}
        for number, row in enumerate(rows):
            start = 0
            for each in map(self.conversations.__getitem__, self.members(row)):
                place = slice(start, start := start + each.positions)
                inputs[number, place] = each.ids[:-1]
                labels[number, place] = np.where(each.said[1:], each.ids[1:], IGNORED)
                positions[number, place] = np.arange(each.positions)
                for name, column in columns.items():
                    column[number, place] = each.columns[name][1:]
            positions[number, start:] = np.arange(self.length - start)
        sources = np.zeros(len(rows), np.int64)
        return Batch(inputs=inputs, labels=labels, positions=positions, sources=sources, columns=columns)

    def whole(self) -> Batch:
        """Every row of an order that ends, shape (rows, length)."""
        rows = 0
        while self.members(rows):
            rows += 1
        return self.batch(range(rows))
