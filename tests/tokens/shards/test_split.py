"""Which held-out documents a figure is measured on."""

import numpy as np

from components.tokens.shards.split import LARGEST_SHARE, sample_of


def test_no_document_decides_a_figure_alone() -> None:
    sizes = np.array([50, 900, 20, 60, 40, 70, 101, 30, 80, 90, 10, 100])
    chosen = sample_of(sizes, 1000, 0)
    assert sorted(sizes[chosen]) == sorted(size for size in sizes if size <= LARGEST_SHARE * 1000)
    assert (np.diff(chosen) > 0).all()


def test_documents_are_drawn_until_they_hold_the_limit() -> None:
    sizes = np.full(1000, 10)
    chosen = sample_of(sizes, 500, 3)
    assert len(chosen) == 50
    assert (chosen == sample_of(sizes, 500, 3)).all() and (chosen != sample_of(sizes, 500, 4)).any()


def test_where_every_document_is_large_they_are_all_there_is() -> None:
    assert sample_of(np.array([700, 800]), 1000, 0).tolist() == [0, 1]
    assert len(sample_of(np.array([700, 800, 900]), 600, 0)) == 1
