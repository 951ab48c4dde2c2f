"""Requests that arrive together run together, a lone one waits for nobody, and none pays for another's mistake.

While one batch runs in a thread the next one gathers. Ray Serve's own batching does the same with a timer, inside a
replica only.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batches(Generic[Item, Result]):
    """Calls `run` in a thread, with one batch at a time of up to `max_size` items, first come first served."""

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Result]], max_size: int) -> None:
        self._run = run
        self._max_size = max_size
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._drain: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """The result of one item. Raises what `run` raises for it alone."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while batch := self._next():
            await self._finish(batch)

    async def _finish(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        """Run a batch. If it fails each item runs again by itself: an error stays with the item that caused it."""
        try:
            results = await asyncio.to_thread(self._run, [item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                for item, future in batch:
                    if not future.done():
                        await self._finish([(item, future)])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _next(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        """The next batch without the items whose caller has gone away."""
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._max_size:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        return batch
