"""What gathers while a batch runs, who gets an error, and that nobody works for a caller who left."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from components.inference.engine import Completion, Sampling
from components.inference.open import CLASSES, open_engine
from components.serving.replicas.batches import Batches
from components.serving.replicas.model_server import Work, generate

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


def test_an_error_stays_with_the_item_that_caused_it() -> None:
    run = Doubler()

    async def main() -> list[int | BaseException]:
        batches = Batches(run, 4)
        calls = [asyncio.create_task(batches(0))]
        await asyncio.sleep(0.05)
        calls += [asyncio.create_task(batches(number)) for number in (1, 13, 2, 3)]
        await asyncio.sleep(0)
        run.gate.set()
        return await asyncio.gather(*calls, return_exceptions=True)

    zero, one, refused, *others = asyncio.run(main())
    assert [zero, one, *others] == [0, 2, 4, 6]
    assert isinstance(refused, ValueError) and str(refused) == "13"
    assert run.seen == [[0], [1, 13, 2, 3], [1], [13], [2], [3]]


@pytest.mark.parametrize("name", CLASSES)
def test_what_an_engine_refuses_is_told_to_who_asked_for_it(
    random_model: Callable[[int], Path], tmp_path: Path, name: str
) -> None:
    """An id that the model does not have, among prompts that it answers."""
    engine = open_engine(random_model(1), name, num_threads=1, cache=tmp_path if name == "ctranslate2" else None)
    works = [
        Work(prompts=((0, token),), sampling=Sampling(max_new_tokens=4), stop_ids=(0,)) for token in (5, 6, 10**6, 7)
    ]

    async def main() -> list[list[list[Completion]] | BaseException]:
        batches = Batches(partial(generate, engine), 4)
        return await asyncio.gather(*map(batches, works), return_exceptions=True)

    first, second, refused, last = asyncio.run(main())
    assert [first, second, last] == [generate(engine, [work])[0] for work in (works[0], works[1], works[3])]
    assert isinstance(refused, ValueError) and "1000000" in str(refused)
    engine.close()
