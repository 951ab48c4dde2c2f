"""Compute threads on cores of their own: who they are, that they go there, and that they come back."""

import os
import threading

import pytest
import torch

from components.training.engine.batches.prefetch import Prefetched
from components.training.engine.devices import cores

needs_two = pytest.mark.skipif(len(cores.ALL_CORES) < 2, reason="one core")


@pytest.fixture
def two_threads() -> None:
    """In a thread of its own: its team is new, and other tests keep theirs."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_a_thread(work) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # handed to the test's own thread
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


@needs_two
def test_each_thread_of_the_team_has_its_own_core_while_training(two_threads: None) -> None:
    def work() -> None:
        team = cores.team_of(2)
        torch.ones(1 << 21).add_(1)  # computed by the same two threads, no new one
        assert cores.team_of(2) == team
        assert team[0] == threading.get_native_id() != team[1]
        with cores.pinned(2) as own:
            assert own
            places = [os.sched_getaffinity(each) for each in team]
            assert all(len(each) == 1 for each in places)
            assert places[0] != places[1]
        assert all(os.sched_getaffinity(each) == cores.ALL_CORES for each in team)

    in_a_thread(work)


@needs_two
def test_threads_that_help_are_free_to_go_anywhere(two_threads: None) -> None:
    def work() -> None:
        with cores.pinned(2), Prefetched(lambda step: os.sched_getaffinity(0), lambda: 0) as batches:
            assert batches(0) == cores.ALL_CORES

    in_a_thread(work)


@needs_two
def test_cores_come_back_after_an_error(two_threads: None) -> None:
    def work() -> None:
        with pytest.raises(OSError), cores.pinned(2):
            raise OSError("a step failed")
        assert os.sched_getaffinity(0) == cores.ALL_CORES

    in_a_thread(work)


@pytest.mark.parametrize("threads", [1, 10_000])
def test_nothing_is_pinned_without_a_core_for_each(threads: int) -> None:
    with cores.pinned(threads) as own:
        assert not own
        assert os.sched_getaffinity(0) == cores.ALL_CORES


@pytest.mark.parametrize(("workers", "device", "spins"), [(1, "cpu", True), (2, "cpu", False), (1, "cuda", False)])
def test_only_a_lone_worker_on_cores_spins(workers: int, device: str, spins: bool) -> None:
    assert cores.has_machine(workers, device) is spins
    assert ("GOMP_SPINCOUNT" in cores.waiting(workers, device)) is spins
    assert cores.waiting(workers, device)["OMP_WAIT_POLICY"] == "PASSIVE"
