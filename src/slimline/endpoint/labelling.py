"""Labels that arrive while the disk is busy are written together: one fsync acknowledges them all.

One thread writes, so a store that is locked holds up labels alone: nothing else waits for that thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from slimline.endpoint.exchange import RefusedError
from slimline.errors import EventError
from slimline.events import Outcome

Labels = list[dict[str, Any]]
LARGEST = 1000  # labels in one transaction, unless one request brings more
MOST = 8192  # labels that wait; more are refused
RETRY = {b"retry-after": b"1"}


class Waiting(NamedTuple):
    """A request's labels, and who waits for what became of them."""

    labels: Labels
    future: asyncio.Future[list[Outcome]]


class Labelling:
    """Brings labels to ``write``, which returns once they are durable, one call at a time."""

    def __init__(self, write: Callable[[Labels], list[Outcome]]) -> None:
        self._write = write
        self._queue: deque[Waiting] = deque()
        self._count = 0
        self._running = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="slimline-labels")

    async def label(self, labels: Labels) -> list[Outcome]:
        """Return what became of each label once it is durable. Raises EventError, and RefusedError 503 in a crowd."""
        if self._count + len(labels) > MOST:
            raise RefusedError(503, "too many labels wait for the event store, nothing was kept", RETRY)
        waiting = Waiting(labels, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._count += len(labels)
        if not self._running:
            self._next()
        return await waiting.future

    def _next(self) -> None:
        batch: list[Waiting] = []
        rows = 0
        while self._queue and (not batch or rows + len(self._queue[0].labels) <= LARGEST):
            batch.append(self._queue.popleft())
            rows += len(batch[-1].labels)
        self._running = bool(batch)
        if batch:
            run = asyncio.get_running_loop().run_in_executor(self._thread, self._attempt, batch)
            run.add_done_callback(partial(self._finished, batch))

    def _attempt(self, batch: list[Waiting]) -> list[list[Outcome] | Exception]:
        """Write a batch; when the data is at fault write each request's labels alone, so that one harms no other."""
        try:
            outcomes = iter(self._write([label for each in batch for label in each.labels]))
        except Exception as error:  # noqa: BLE001  (it reaches each who waits)
            if len(batch) == 1 or (isinstance(error, EventError) and error.reason != "invalid"):
                return [error] * len(batch)
            return [self._attempt([each])[0] for each in batch]
        return [[next(outcomes) for _ in each.labels] for each in batch]

    def _finished(self, batch: list[Waiting], run: asyncio.Future[list[list[Outcome] | Exception]]) -> None:
        for each, result in zip(batch, run.result(), strict=True):
            self._count -= len(each.labels)
            if each.future.done():  # its client has left
                continue
            if isinstance(result, Exception):
                each.future.set_exception(result)
            else:
                each.future.set_result(result)
        self._next()

    def close(self) -> None:
        """End the thread once its write is over."""
        self._thread.shutdown(wait=False)
