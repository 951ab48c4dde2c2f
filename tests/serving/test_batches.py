"""What gathers while a batch runs, who gets an error, and that nobody works for a caller who left."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from components.serving.batches import Batches

pytestmark = pytest.mark.numeric


class Doubler:
    """Doubles numbers, refuses 13, and waits at a gate before its first batch."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.gate = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.seen.append(list(items))
        assert self.gate.wait(5)
        if 13 in items:
            raise ValueError("13")
        return [2 * item for item in items]


def test_the_first_runs_alone_and_the_rest_gather() -> None:
    run = Doubler()

    async def main() -> list[int]:
        batches = Batches(run, 4)
        calls = [asyncio.create_task(batches(0))]
        await asyncio.sleep(0.05)
        calls += [asyncio.create_task(batches(number)) for number in range(1, 7)]
        await asyncio.sleep(0.05)
        run.gate.set()
        return await asyncio.gather(*calls)

    assert asyncio.run(main()) == [0, 2, 4, 6, 8, 10, 12]
    assert run.seen == [[0], [1, 2, 3, 4], [5, 6]]


def test_a_caller_who_left_is_skipped() -> None:
    run = Doubler()

    async def main() -> int:
        batches = Batches(run, 4)
        first = asyncio.create_task(batches(0))
        await asyncio.sleep(0.05)
        gone, stays = asyncio.create_task(batches(1)), asyncio.create_task(batches(2))
        await asyncio.sleep(0)
        gone.cancel()
        run.gate.set()
        await first
        return await stays

    assert asyncio.run(main()) == 4
    assert run.seen == [[0], [2]]


def test_an_error_reaches_its_batch_and_the_next_one_runs() -> None:
    run = Doubler()
    run.gate.set()

    async def main() -> int:
        batches = Batches(run, 4)
        with pytest.raises(ValueError, match="13"):
            await batches(13)
        return await batches(1)

    assert asyncio.run(main()) == 2
