"""What a sample of tokens asks of the model: the next token, or the middle of a piece whose end is given.

Fill in the middle after Bavarian et al. 2022 (arXiv:2207.14255): each piece of a document inside a training window is,
with the chance `rate`, cut at two places and written prefix, suffix, middle, so that a plain next-token model learns to
fill and when to stop. Applied inside the window ("context level"), where section 4.1 finds it best: a piece is cut
shorter so that its middle and its end fit.
Not covered: cuts inside a token (cuts fall between tokens), the suffix-prefix-middle order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MINIMUM_PIECE_TOKENS = 8
FILL_TOKENS = 4  # prefix, suffix, middle, end


@dataclass(frozen=True, slots=True, kw_only=True)
class FillTokens:
    """Ids of the special tokens that the objective writes."""

    prefix: int
    suffix: int
    middle: int
    end: int


def fill_in_the_middle(
    piece: NDArray[np.int64], tokens: FillTokens, generator: np.random.Generator
) -> NDArray[np.int64]:
    """One piece, cut at two uniform places and written prefix, suffix, middle, end: four tokens longer.

    The end token follows the middle whether or not the document ends there: it is what tells a server to stop.
    """
    first, second = np.sort(generator.integers(0, len(piece) + 1, size=2))
    begin, suffix, middle, end = ([each] for each in (tokens.prefix, tokens.suffix, tokens.middle, tokens.end))
    return np.concatenate([begin, piece[:first], suffix, piece[second:], middle, piece[first:second], end])


def undo_fill_in_the_middle(piece: NDArray[np.int64], tokens: FillTokens) -> NDArray[np.int64]:
    """The piece that fill_in_the_middle rearranged."""
    assert piece[-1] == tokens.end
    piece = piece[:-1]
    suffix, middle = np.flatnonzero(piece == tokens.suffix)[0], np.flatnonzero(piece == tokens.middle)[0]
    return np.concatenate([piece[1:suffix], piece[middle + 1 :], piece[suffix + 1 : middle]])


def window_with_fills(
    window: NDArray[np.int64], rate: float, tokens: FillTokens, seed: int, epoch: int, sample: int
) -> NDArray[np.int64]:
    """A window of T + 1 tokens with some of its pieces rearranged, cut to T + 1 again.

    A pure function of its arguments: the same sample of the same epoch is always rearranged alike.
    """
    if rate <= 0:
        return window
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, sample]))
    ends = np.flatnonzero(window == tokens.end)
    parts: list[NDArray[np.int64]] = []
    start, room = 0, len(window)
    for end in [*ends, len(window)]:
        piece = window[start:end][: max(0, room - FILL_TOKENS)]
        if len(piece) >= MINIMUM_PIECE_TOKENS and generator.random() < rate:
            parts.append(fill_in_the_middle(piece, tokens, generator))
        else:
            parts.append(window[start : end + 1])
        start, room = end + 1, room - len(parts[-1])
    return np.concatenate(parts)[: len(window)]
