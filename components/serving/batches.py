"""Requests that arrive together run together, and a lone one waits for nobody.

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
        """The result of one item; an exception of its batch is raised to every item of it."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while batch := self._next():
            try:
                results = await asyncio.to_thread(self._run, [item for item, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
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
