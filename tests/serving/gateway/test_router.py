"""Each version gets its share."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.serving.gateway.router import Table, choose
from components.serving.versions import WeightedVersion


def table(*weights: int) -> Table:
    targets = tuple(
        WeightedVersion(version=index + 1, digest="d" * 64, weight=each) for index, each in enumerate(weights)
    )
    return Table(environment="production", commit="c" * 40, serving="s" * 64, targets=targets)


@given(st.integers(1, 99))
def test_shares_are_the_weights(weight: int) -> None:
    shares = table(weight, 100 - weight)
    counts: Counter[int] = Counter()
    for step in range(1000):
        target = choose(shares, "overnight", step / 1000)
        assert target is not None
        counts[target.version] += 1
    assert counts == {1: weight * 10, 2: (100 - weight) * 10}


def test_a_version_by_name_gets_it_whatever_its_weight() -> None:
    target = choose(table(99, 1), "overnight:2", 0.0)
    assert target is not None and target.version == 2
    assert choose(table(99, 1), "overnight:3", 0.0) is None


@pytest.mark.parametrize("weights", [(), (99,), (50, 51)])
def test_weights_that_are_not_whole_are_refused(weights: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        table(*weights)
