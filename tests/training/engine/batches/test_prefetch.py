"""Batches made ahead are the very batches, whatever happens in between; errors come at their step; threads end."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.training.engine.batches.batch import Batch, next_token_batch
from components.training.engine.batches.prefetch import Prefetched


def batch_of(step: int, basis: int) -> Batch:
    return next_token_batch(np.array([[step, basis, 0]]))


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("prefetch")]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12), st.integers(1, 4))
def test_every_step_gets_its_batch_on_the_basis_of_now(asked: list[tuple[int, bool]], depth: int) -> None:
    basis = 0

    def make(step: int) -> Batch:
        return batch_of(step, basis)

    step = 0
    with Prefetched(make, lambda: basis, depth) as prefetched:
        for jump, changes in asked:
            step = step + 1 if jump else jump
            basis += changes
            assert prefetched(step).inputs.tolist() == [[step, basis]]
    assert not threads()


def test_batches_are_made_ahead_and_never_more_than_the_depth() -> None:
    made: list[int] = []

    def make(step: int) -> Batch:
        made.append(step)
        return batch_of(step, 0)

    with Prefetched(make, lambda: 0, depth=3) as prefetched:
        prefetched(10)
        until = time.monotonic() + 30
        while len(made) < 4 and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.02)
        assert made == [10, 11, 12, 13]
    assert not threads()


def test_an_error_comes_out_at_its_step_and_the_thread_ends() -> None:
    def make(step: int) -> Batch:
        if step == 2:
            raise ValueError("the tokens of step 2 cannot be read")
        return batch_of(step, 0)

    with pytest.raises(ValueError, match="step 2 cannot"), Prefetched(make, lambda: 0) as prefetched:
        assert [prefetched(step).inputs[0, 0] for step in (0, 1)] == [0, 1]
        prefetched(2)
    assert not threads()
