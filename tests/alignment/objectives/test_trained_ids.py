"""Rows that would teach the wrong thing, or would be cut, are refused in one line."""

import pytest

from components.alignment.examples.lengths import fitting
from components.alignment.objectives.trained_ids import check_labels
from components.core.errors import DataError


def test_what_fits_is_kept_and_too_many_that_do_not_stop_the_stage() -> None:
    lengths = [10] * 38 + [300, 256]
    assert fitting(lengths, 256, 0.05, where="pairs", bound="align.max_tokens") == [*range(38), 39]
    assert fitting([], 256, 0.05, where="pairs", bound="align.max_tokens") == []
    with pytest.raises(
        DataError, match=r"pairs: 2 of 40 are longer than align.max_tokens of 255 \(the longest has 300\), .*"
    ):
        fitting(lengths, 255, 0.04, where="pairs", bound="align.max_tokens")


@pytest.mark.parametrize(
    ("labels", "pad", "message"),
    [
        ([[-100, 5, 8], [-100, -100]], 4, "row 1 has no token to learn from"),
        ([[]], 4, "row 0 has no token to learn from"),
        ([[-100, 5, 0]], 0, "row 0 learns to stop with token 0, which also fills up batches"),
        ([[5, 16]], 4, "row 0 has token 16, the model's vocabulary has 16"),
        ([[5, -1]], 4, "row 0 has token -1, the model's vocabulary has 16"),
    ],
)
def test_rows_that_teach_the_wrong_thing_are_refused(labels: list[list[int]], pad: int, message: str) -> None:
    with pytest.raises(DataError, match=message) as refusal:
        check_labels(labels, pad=pad, stops=(8, 0), vocabulary_size=16, where="rows")
    assert "\n" not in str(refusal.value)


def test_other_rows_pass() -> None:
    check_labels([[-100, 5, 8], [5, 0], [5]], pad=4, stops=(8, 0), vocabulary_size=16, where="rows")
    check_labels([[-100, 5, 8]], pad=0, stops=(8, 0), vocabulary_size=16, where="rows")
