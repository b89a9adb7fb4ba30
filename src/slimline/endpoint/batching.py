"""Adaptive batching that waits for nothing: a batch is whoever is there when the model gets free.

An idle model runs a request at once. Requests that arrive in the same turn of the event loop, or while the model is
busy, queue up and go together next. No timer, so no added latency and nothing to tune but the largest batch.

A short run happens on the event loop: handing it to a thread and back costs more than it does. Longer ones run in the
worker thread, so that the loop keeps reading and answering. Where there is one core for both, nothing is won by that
until a run is long: the two would wait for each other's turns of some milliseconds.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slimline.endpoint.exchange import RefusedError
from slimline.endpoint.speed import Speed
from slimline.errors import UnavailableError
from slimline.predictor import Arrays

INLINE_SECONDS = 1e-3
INLINE_SECONDS_ON_ONE_CORE = 5e-3


class Run(NamedTuple):
    """One request's outputs, its seconds in the queue and in the model, and the rows of the batch it went in."""

    outputs: Arrays
    queue: float
    predict: float
    rows: int


@dataclass(eq=False, slots=True)
class Waiting:
    """A request in the queue."""

    inputs: Arrays
    rows: int
    future: asyncio.Future[Run]
    since: float = field(default_factory=perf_counter)


class Batcher:
    """Runs ``run`` (arrays in, arrays out, the batch axis first), one call at a time.

    ``finish`` turns a batch's outputs into more of them, or others, outside of the time that counts as the model's.

    ``fills`` {input: value}: rows of these may be of several lengths in one batch, the shorter filled up with the
    value, up to twice their own length: more would cost more than it saves.

    ``max_rows`` is the largest batch put together; a single request may be larger. Rows beyond ``max_waiting`` are
    shed with 429, and so is who would wait longer than ``max_wait`` seconds by the model's speed. ``inline`` False
    leaves every run to the worker thread.
    """

    def __init__(
        self, run: Callable[[Arrays], Arrays], speed: Speed, *, max_rows: int, max_waiting: int,
        max_wait: float = 30.0, inline: bool = True, name: str = "model",
        finish: Callable[[Arrays], Arrays] = lambda outputs: outputs, fills: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        self._run = run
        self._finish = finish
        self._fills = fills or {}
        self._speed = speed
        self._max_rows = max_rows
        self._max_waiting = max_waiting
        self._max_wait = max_wait
        self._inline = inline_seconds() if inline else 0.0
        self._queue: deque[Waiting] = deque()
        self._running = False
        self._crowded = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"slimline-{name}")
        self.waiting_rows = 0

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not (self._running or self._queue)

    async def predict(self, inputs: Arrays, rows: int) -> Run:
        """Return the outputs for ``inputs``. Raises RefusedError 429 when the queue is full."""
        loop = asyncio.get_running_loop()
        free = not (self._running or self._crowded or self._queue)
        if free:
            self._crowded = True
            loop.call_soon(self._turn)
            if self._speed.estimate(rows) <= self._inline:
                start = perf_counter()
                outputs = self._run(inputs)
                took = self._took(rows, start)
                return Run(self._finish(outputs), 0.0, took, rows)
        elif self.waiting_rows:
            wait = self._speed.estimate(self.waiting_rows)
            if self.waiting_rows + rows > self._max_waiting or wait > self._max_wait:
                retry = {b"retry-after": b"%d" % max(1, round(wait))}
                raise RefusedError(429, "the queue is full, try again later", retry)
        waiting = Waiting(inputs, rows, loop.create_future())
        self._queue.append(waiting)
        self.waiting_rows += rows
        if free:
            self._next()
        return await waiting.future

    def _turn(self) -> None:
        """Run what came in the turn of the loop that is over."""
        self._crowded = False
        if not self._running:
            self._next()

    def _next(self) -> None:
        """Start the next batch, if anybody waits."""
        batch = self._pick()
        if not batch:
            return
        loop = asyncio.get_running_loop()
        if self._speed.estimate(sum(each.rows for each in batch)) <= self._inline:
            _settle(batch, self._attempt(batch))
            if self._queue:  # the loop answers these before it goes on
                self._crowded = True
                loop.call_soon(self._turn)
        else:
            self._running = True
            run = loop.run_in_executor(self._thread, self._attempt, batch)
            run.add_done_callback(partial(self._finished, batch))

    def _finished(self, batch: list[Waiting], run: asyncio.Future[list[Run | Exception]]) -> None:
        self._running = False
        _settle(batch, run.result())
        self._next()

    def _pick(self) -> list[Waiting]:
        """Take the first in the queue and those behind it that fit beside it; who has left is dropped."""
        batch: list[Waiting] = []
        rows, shape, shortest, longest = 0, None, 0, 0
        while self._queue:
            first = self._queue[0]
            if first.future.done():
                self.waiting_rows -= self._queue.popleft().rows
                continue
            own = {name: array.shape[2 if name in self._fills else 1 :] for name, array in first.inputs.items()}
            length = max((first.inputs[name].shape[1] for name in self._fills), default=0)
            least, most = (min(shortest, length), max(longest, length)) if batch else (length, length)
            if batch and (rows + first.rows > self._max_rows or own != shape or most > 2 * least):
                break
            batch.append(self._queue.popleft())
            rows, shape, shortest, longest = rows + first.rows, own, least, most
        self.waiting_rows -= rows
        return batch

    def _attempt(self, batch: list[Waiting]) -> list[Run | Exception]:
        """Run a batch; when it fails, run each alone, so that one bad request fails no other."""
        start = perf_counter()
        rows = sum(each.rows for each in batch)
        try:
            outputs = self._run(stacked([each.inputs for each in batch], self._fills))
        except Exception as error:  # noqa: BLE001  (a runtime raises classes of its own)
            if len(batch) == 1 or isinstance(error, UnavailableError):  # which each alone would wait for in vain
                return [error] * len(batch)
            return [self._attempt([each])[0] for each in batch]
        took = self._took(rows, start)
        outputs = self._finish(outputs)
        runs: list[Run | Exception] = []
        at = 0
        for each in batch:
            own = {name: array[at : at + each.rows] for name, array in outputs.items()}
            runs.append(Run(own, start - each.since, took, rows))
            at += each.rows
        return runs

    def _took(self, rows: int, start: float) -> float:
        seconds = perf_counter() - start
        self._speed.observe(rows, seconds)
        return seconds

    def close(self) -> None:
        """End the worker thread once its run is over."""
        self._thread.shutdown(wait=False)


def inline_seconds() -> float:
    """Return how long a run on the event loop may be, by the cores that this process may use."""
    several = not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) > 1
    return INLINE_SECONDS if several else INLINE_SECONDS_ON_ONE_CORE


def _settle(batch: list[Waiting], outcome: list[Run | Exception]) -> None:
    for each, result in zip(batch, outcome, strict=True):
        if each.future.done():  # its client has left
            continue
        if isinstance(result, Exception):
            each.future.set_exception(result)
        else:
            each.future.set_result(result)


def stacked(parts: list[Arrays], fills: Mapping[str, int]) -> Arrays:
    """Return one batch of several requests' inputs, rows filled up with ``fills`` to the longest."""
    if len(parts) == 1:
        return parts[0]
    for name, value in fills.items():
        longest = max(part[name].shape[1] for part in parts)
        parts = [{**part, name: _filled(part[name], longest, value)} for part in parts]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _filled(array: NDArray[Any], length: int, value: int) -> NDArray[Any]:
    rest = length - array.shape[1]
    return np.pad(array, ((0, 0), (0, rest)), constant_values=value) if rest else array


def batch_limit(signature: dict[str, Any], limit: int) -> int:
    """Return how many rows may go together: a model with a fixed batch axis takes no more than that."""
    fixed = [spec["shape"][0] for spec in signature["inputs"] if isinstance(spec["shape"][0], int)]
    return min([limit, *fixed])
