"""Batches made ahead of the steps that read them, in a thread. Standard library and numpy only.

Which batch a step gets does not depend on the thread: each is a pure function of its step and of a basis (what is
skipped, what is decided), and one that was made on another basis, or for another step, is thrown away and made again.
Memory is `depth` batches. An error of the thread comes out at the step that would have read the batch.
"""

from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from components.training.engine.batches.batch import Batch
from components.training.engine.devices.cores import free


class Prefetched:
    """The batches of `make`, asked for step by step. A context: leaving it ends the thread.

    make    the batch of a step
    basis   what else `make` depends on, now; must be equal whenever its batches are
    depth   batches that wait at most; after some step's batch those of the next ones are begun
    """

    def __init__(self, make: Callable[[int], Batch], basis: Callable[[], Hashable], depth: int = 2) -> None:
        self._make, self._basis, self._depth = make, basis, depth
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch", initializer=free)
        self._waiting: deque[tuple[int, Hashable, Future[Batch]]] = deque()

    def __call__(self, step: int) -> Batch:
        """The batch of a step. Raises what making it raises."""
        basis = self._basis()
        if self._waiting and self._waiting[0][:2] != (step, basis):
            self._forget()
        self._begin(step, basis)
        _, _, made = self._waiting.popleft()
        try:
            batch = made.result()
        except BaseException:
            self._forget()
            raise
        self._begin(step + 1, basis)
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget()
        self._pool.shutdown()

    def _begin(self, step: int, basis: Hashable) -> None:
        """Let `depth` batches be made from this step on, counting those that are."""
        for ahead in range(step + len(self._waiting), step + self._depth):
            self._waiting.append((ahead, basis, self._pool.submit(self._make, ahead)))

    def _forget(self) -> None:
        """Drop what waits; return once the thread does nothing."""
        for _, _, made in self._waiting:
            made.cancel()
        for _, _, made in self._waiting:
            if not made.cancelled():
                made.exception()
        self._waiting.clear()
