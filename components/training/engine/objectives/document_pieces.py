"""A window of tokens as pieces of documents. Only numpy.

A window is T + 1 tokens: T that are read, each saying the one after it. A token that ends a document is read as the
beginning of the next one, as validation and serving read it, and said as the end of the one before.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

MINIMUM_PIECE_TOKENS = 8
"""A shorter piece is read as it is: nothing is left to ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What a window holds of one document.

    row, start, stop   where it is read: positions [start, stop) of its row
    tokens             its text, shape (text tokens,), without the tokens that end documents. The last may lie behind
                       `stop`, where it is said and not read
    ends               the document ends with it
    """

    row: int
    start: int
    stop: int
    tokens: NDArray[np.int64]
    ends: bool

    @property
    def room(self) -> int:
        """Positions that it may fill."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What takes the place of a piece: n + 1 tokens, of which the model reads the first n.

    scored   (n,) whether the token after each position is asked for
    """

    tokens: NDArray[np.int64]
    scored: NDArray[np.bool_]


def pieces_of(windows: NDArray[np.int64], end: int) -> list[Piece]:
    """The pieces of windows, shape (B, T + 1), row by row in their order; together they fill all T positions."""
    pieces = []
    length = windows.shape[1] - 1
    for row, window in enumerate(windows):
        starts = np.flatnonzero(window[:-1] == end).tolist()
        starts = starts if starts[:1] == [0] else [0, *starts]
        for start, stop in zip(starts, [*starts[1:], length], strict=True):
            begins, ends = bool(window[start] == end), bool(window[stop] == end)
            tokens = window[start + begins : stop + 1 - ends]
            pieces.append(Piece(row=row, start=start, stop=stop, tokens=tokens, ends=ends))
    return pieces


def halved(piece: Piece, draw: float) -> list[Piece]:
    """A piece cut in two at a uniform place, by a draw in [0, 1); itself where one part would be too short to ask."""
    free = len(piece.tokens) - 2 * MINIMUM_PIECE_TOKENS + 1
    if free < 1:
        return [piece]
    size = MINIMUM_PIECE_TOKENS + int(draw * free)
    middle = piece.start + size
    first = replace(piece, stop=middle, tokens=piece.tokens[:size], ends=False)
    return [first, replace(piece, start=middle, tokens=piece.tokens[size:])]
