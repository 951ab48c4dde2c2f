"""A window of tokens as pieces of documents. Only numpy.

A window is T + 1 tokens: T that are read, each saying the one after it. A token that ends a document is read as the
beginning of the next one, as validation and serving read it, and said as the end of the one before.
Files of a package that follow each other are one piece, each file but perhaps the first below a separator and its path:
what is asked of one file (`file_of`) has the others before it as they are.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

MINIMUM_PIECE_TOKENS = 8
"""A shorter piece is read as it is: nothing is left to ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What a window holds of one document, or of files of a package that follow each other.

    row, start, stop   where it is read: positions [start, stop) of its row
    tokens             its text, shape (text tokens,), without the tokens that end documents. The last may lie behind
                       `stop`, where it is said and not read
    ends               the document ends with it
    begins             its first position reads the token that ended the document before
    lead               positions before `start` that it may look back to and that stay as they are: files before it, and
                       its own path
    """

    row: int
    start: int
    stop: int
    tokens: NDArray[np.int64]
    ends: bool
    begins: bool = False
    lead: int = 0

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
            pieces.append(Piece(row=row, start=start, stop=stop, tokens=tokens, ends=ends, begins=begins))
    return pieces


def halved(piece: Piece, draw: float) -> list[Piece]:
    """A piece cut in two at a uniform place, by a draw in [0, 1); itself where one part would be too short to ask."""
    free = len(piece.tokens) - 2 * MINIMUM_PIECE_TOKENS + 1
    if free < 1:
        return [piece]
    size = MINIMUM_PIECE_TOKENS + int(draw * free)
    middle = piece.start + size
    first = replace(piece, stop=middle, tokens=piece.tokens[:size], ends=False)
    return [first, replace(piece, start=middle, tokens=piece.tokens[size:], begins=False, lead=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMarks:
    """What files of a package are told apart by: the id of the token before a file, and of the one behind its path."""

    separator: int
    line_end: int


def file_of(piece: Piece, marks: FileMarks, draw: float) -> tuple[Piece | None, list[Piece]]:
    """One file of a piece, its path and what stands before it in the lead, and the piece of what stands behind it.

    draw    in [0, 1) chooses a token of the files that are long enough to ask for, and so its file: None where none is
    """
    tokens = piece.tokens
    separators, line_ends = (np.flatnonzero(tokens == each) for each in (marks.separator, marks.line_end))
    # What stands before the first separator is the end of a file that began before the window.
    begins = np.append(0, np.append(line_ends, len(tokens))[np.searchsorted(line_ends, separators)] + 1)
    stops = np.append(separators, len(tokens))
    sizes = np.where(stops - begins < MINIMUM_PIECE_TOKENS, 0, stops - begins)
    if not sizes.any():
        return None, [piece]
    chosen = int(np.searchsorted(np.cumsum(sizes), int(draw * sizes.sum()), side="right"))
    begin, stop = int(begins[chosen]), int(stops[chosen])
    first = piece.start + piece.begins  # where its text begins
    start = first + begin if chosen else piece.start
    file = replace(piece, start=start, tokens=tokens[begin:stop], begins=piece.begins and not chosen)
    file = replace(file, lead=start - piece.start)
    if stop == len(tokens):
        return file, []
    behind = replace(piece, start=first + stop, tokens=tokens[stop:], begins=False)
    return replace(file, stop=first + stop, ends=True), [behind]
