"""Conversations side by side in rows of one length, so that little of a batch is padding. Only numpy.

A conversation of n + 1 ids fills n positions: each says the token after it. Every conversation is a piece of its own,
which no other one attends to. Longest first into the room that is left, of a pool of those that are due.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

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


class PackedRows:
    """Rows of conversations: row r is the same whenever it is asked for. Where the order ends, empty rows follow."""

    def __init__(self, conversations: Sequence[Conversation], order: Iterator[int], length: int, pad: int) -> None:
        """`length` positions of a row; no conversation may have more, and all have the same columns."""
        assert all(each.positions <= length for each in conversations), "longer ones are left out before"
        self.conversations = conversations
        self.length = length
        self.pad = pad
        self._order = order
        self._pool: list[tuple[int, int]] = []  # (positions, number), shortest first
        self._rows: list[list[int]] = []

    def members(self, row: int) -> list[int]:
        """Numbers of the conversations in a row, in their places."""
        while len(self._rows) <= row:
            self._rows.append(self._fill())
        return self._rows[row]

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

    def padding_share(self, rows: int) -> float:
        """Of the positions of the first rows, those that nothing fills."""
        used = sum(self.conversations[each].positions for row in range(rows) for each in self.members(row))
        return 1 - used / max(1, rows * self.length)

    def _fill(self) -> list[int]:
        row: list[int] = []
        room = self.length
        while True:
            while len(self._pool) < POOL and (number := next(self._order, None)) is not None:
                entry = (self.conversations[number].positions, number)
                self._pool.insert(bisect_right(self._pool, entry), entry)
            place = bisect_right(self._pool, (room, len(self.conversations)))
            if not place:
                return row
            positions, number = self._pool.pop(place - 1)
            room -= positions
            row.append(number)
