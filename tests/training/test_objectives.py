"""Fill in the middle loses nothing and invents nothing."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.training.objectives import (
    FillTokens,
    fill_in_the_middle,
    undo_fill_in_the_middle,
    window_with_fills,
)

TOKENS = FillTokens(prefix=1, suffix=3, middle=2, end=0)
pieces = st.lists(st.integers(16, 4095), min_size=1, max_size=60)


@given(pieces, st.integers(0, 2**32))
def test_a_rearranged_piece_can_be_put_back(piece: list[int], seed: int) -> None:
    found = fill_in_the_middle(np.array(piece), TOKENS, np.random.default_rng(seed))
    assert len(found) == len(piece) + 4
    assert found[-1] == TOKENS.end
    assert found[0] == TOKENS.prefix
    order = [int(np.flatnonzero(found == each)[0]) for each in (TOKENS.prefix, TOKENS.suffix, TOKENS.middle)]
    assert order == sorted(order)
    assert undo_fill_in_the_middle(found, TOKENS).tolist() == piece


@given(st.lists(pieces, min_size=1, max_size=5), st.integers(0, 1000))
def test_a_window_keeps_its_length_and_depends_on_its_place_alone(documents: list[list[int]], sample: int) -> None:
    window = np.concatenate([[*document, TOKENS.end] for document in documents])
    found = window_with_fills(window, 1.0, TOKENS, 0, 0, sample)
    assert len(found) == len(window)
    assert (found == window_with_fills(window, 1.0, TOKENS, 0, 0, sample)).all()
    assert set(found.tolist()) <= set(window.tolist()) | {1, 2, 3}


@given(st.lists(pieces, min_size=1, max_size=5), st.integers(0, 1000), st.booleans())
def test_every_middle_is_whole_and_ended(documents: list[list[int]], sample: int, cut: bool) -> None:
    """Also where the window ends inside a document: a server would otherwise not know when to stop."""
    window = np.concatenate([[*document, TOKENS.end] for document in documents])
    window = window[: len(window) - 1] if cut else window
    found = window_with_fills(window, 1.0, TOKENS, 0, 0, sample)
    for start in np.flatnonzero(found == TOKENS.prefix):
        length = int(np.flatnonzero(found[start:] == TOKENS.end)[0])
        undone = undo_fill_in_the_middle(found[start : start + length + 1], TOKENS).tolist()
        assert any(document[: len(undone)] == undone for document in documents)


def test_rate_zero_is_the_window_itself_and_the_rate_is_met() -> None:
    window = np.tile(np.append(np.arange(20, 40), 0), 500)
    assert window_with_fills(window, 0.0, TOKENS, 0, 0, 0) is window
    filled = sum(int((window_with_fills(window, 0.3, TOKENS, 0, 0, sample) == 1).sum()) for sample in range(4))
    assert 0.25 < filled / (4 * 500 * 21 / 22) < 0.35
