"""Writes predictions behind the requests' back: a bounded queue, one thread, batches, and patience with the store.

``put`` appends to a deque and looks at a length. Everything else happens in the writer's thread, which wakes every
``interval`` seconds, writes what has come in batches, and, while the store can't be written to, keeps what fits and
tries again with growing pauses. What had to be let go is counted by reason.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from slimline.errors import EventError
from slimline.events import writing
from slimline.events.database import TRANSIENT
from slimline.events.records import Arrays, Prediction
from slimline.events.store import DEFAULT_URL, EventStore

if TYPE_CHECKING:
    from slimline.events.sampler import Sampler

LOG = logging.getLogger(__name__)
REASONS = (*sorted(TRANSIENT), "failed", "overflow", "invalid", "closed")  # that a prediction is let go for
DAY = 86_400.0
SWEEP = 3600.0  # seconds between two looks for what has become too old
BEHIND = 5  # in nice: a quarter of a busy core is left, several times what writing needs
Dropped = Callable[[str, int], None]
Counted = Callable[[int], None]


class EventWriter:
    """Takes predictions without ever blocking or raising, and brings them to the store.

    ``capacity`` is how many may wait, ``batch`` how many are written in one transaction, ``interval`` (seconds) how
    long one waits at most while all is well. Under steady traffic it writes every ``pace`` seconds: a transaction costs
    a millisecond by itself, and a long one takes the core from the thread that serves. ``pause`` and ``longest_pause``
    bound the pauses between tries (seconds).
    ``retention`` (days) deletes what is older, now and then. ``sampler`` runs a share of the rows through the whole
    chain. ``on_drop(reason, count)`` is told of each loss, ``on_duplicate(count)`` of predictions whose id was written
    before, ``on_failed_sample(count)`` of those written without the sample they were drawn for, in the thread it
    happened in. The store is opened in the writer's thread: it need not be there yet.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        capacity: int = 65_536,
        batch: int = 1024,
        interval: float = 0.2,
        pace: float = 0.1,
        pause: float = 0.1,
        longest_pause: float = 5.0,
        timeout: float = 2.0,
        retention: float | None = None,
        sampler: Sampler | None = None,
        on_drop: Dropped | None = None,
        on_duplicate: Counted | None = None,
        on_failed_sample: Counted | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self.capacity = capacity
        self.sampler = sampler
        self.written = 0
        self.duplicates = 0
        self.failed_samples = 0
        self.fault: EventError | None = None
        """What keeps the store from being written to now; None while all is well."""
        self._batch, self._interval, self._timeout = batch, interval, timeout
        self._pace, self._pause, self._longest_pause = min(pace, interval), pause, longest_pause
        self._retention = retention
        self._clock, self._monotonic = clock, monotonic
        self._started = (clock(), monotonic())
        self._swept: float | None = None
        self._on_drop, self._on_duplicate, self._on_failed_sample = on_drop, on_duplicate, on_failed_sample
        self._queue: deque[Prediction] = deque()
        self._flight: list[Prediction] = []
        self._dropped: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._settled = 0  # taken predictions that were written or dropped
        self._moving = threading.Condition()  # guards the way from queue to flight to settled
        self._wake = threading.Event()
        self._closing = self._given_up = False
        self._store: EventStore | None = None
        self._thread = threading.Thread(target=self._run, name="event-writer", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Predictions taken and neither written nor dropped yet."""
        return len(self._queue) + len(self._flight)

    @property
    def dropped(self) -> dict[str, int]:
        """Predictions that were let go, by reason: the store's fault when there was no more room, invalid, closed."""
        with self._counting:
            return dict(self._dropped)

    def put(self, prediction: Prediction, inputs: Arrays | None = None) -> bool:
        """Take a prediction and return True, or count it as dropped and return False. Never blocks, never raises.

        ``inputs`` are what was predicted on; give them for the sampler to choose from.
        """
        if self._closing or len(self._queue) + len(self._flight) >= self.capacity:
            self._drop("closed" if self._closing else self.fault.reason if self.fault else "overflow", 1)
            return False
        if inputs is not None and self.sampler is not None:
            try:
                prediction = self.sampler.offer(prediction, inputs)
            except Exception as error:  # noqa: BLE001  the request goes on, whatever its inputs are like
                self._sample_failed(prediction, error)
        self._queue.append(prediction)
        return True

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was taken before is written or dropped; return whether it was within ``timeout``."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._moving:
            target = self._settled + self.pending
            while self._settled < target:
                if not self._thread.is_alive() or (deadline is not None and time.monotonic() >= deadline):
                    return False
                self._wake.set()
                self._moving.wait(0.02)
        return True

    def close(self, timeout: float = 5.0) -> bool:
        """Take nothing more, write what waits, stop; return whether nothing was lost.

        What couldn't be written within ``timeout`` seconds is counted as dropped.
        """
        self._closing = True
        done = self.flush(timeout)
        self._given_up = True
        self._wake.set()
        self._thread.join(self._timeout)
        self._let_go()
        return done

    def _run(self) -> None:
        _step_back()
        self._open()  # at once: who reads the store, a monitor, finds it before the first prediction
        tries = 0
        while not self._given_up:
            if not self._flight:
                self._take()
            if not self._flight:
                self._sweep()
                self._rest(self._interval)
            elif self._deliver():
                tries = 0
                if len(self._queue) < self._batch and not self._closing:
                    self._sweep()
                    self._rest(self._pace)
            else:
                self._rest(min(self._longest_pause, self._pause * 2**tries) * random.uniform(0.5, 1.0))  # noqa: S311
                tries = min(tries + 1, 20)
        self._let_go()
        if self._store is not None:
            self._store.close()

    def _rest(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def _take(self) -> None:
        """Move a batch from the queue into flight, and sample in it."""
        with self._moving:
            for _ in range(min(self._batch, len(self._queue))):
                self._flight.append(self._queue.popleft())
        if self.sampler is not None:
            for place, prediction in enumerate(self._flight):
                if prediction.sampled is not None and prediction.stages is None:
                    self._flight[place] = self._sampled(self.sampler, prediction)

    def _sampled(self, sampler: Sampler, prediction: Prediction) -> Prediction:
        try:
            return sampler.run(prediction)
        except Exception as error:  # noqa: BLE001  whatever a model or a runtime raises: the answer itself is kept
            self._sample_failed(prediction, error)
            return replace(prediction, sampled=None, inputs=None)

    def _sample_failed(self, prediction: Prediction, error: Exception) -> None:
        with self._counting:
            self.failed_samples += 1
        LOG.warning("sample of prediction %r: %s", prediction.id, error)
        _tell(self._on_failed_sample, 1)

    def _open(self) -> bool:
        """Open the store unless it is open; return False, and remember the fault, where it can't be."""
        if self._store is None:
            try:
                self._store = EventStore.open(self._url, timeout=self._timeout, clock=self._clock)
            except Exception as error:  # noqa: BLE001  the thread must outlive whatever a driver raises
                return self._recover(error)
        return True

    def _deliver(self) -> bool:
        """Try to write what is in flight; return False where the store is at fault and patience may help."""
        if not self._open():
            return False
        assert self._store is not None  # noqa: S101
        try:
            new = self._store.write(self._flight)
        except Exception as error:  # noqa: BLE001  the thread must outlive whatever a driver raises
            return self._recover(error)
        if self.fault is not None:
            LOG.warning("event store: writing again; %d wait", len(self._queue))
            self.fault = None
        self._settle(list(self._flight), written=new)  # who waits for it finds no fault any more
        return True

    def _recover(self, error: Exception) -> bool:
        """Blame the data or the store: let go what can't be written, or keep all and remember the fault."""
        reason = error.reason if isinstance(error, EventError) else "failed"
        if reason not in TRANSIENT and (self._sift() or (reason == "invalid" and self._one_by_one())):
            return True
        fault = error if isinstance(error, EventError) else EventError(f"{type(error).__name__}: {error}", "failed")
        if self.fault is None or self.fault.reason != fault.reason:
            LOG.warning("%s; predictions wait for it, %d at most", fault, self.capacity)
        self.fault = fault
        if self._store is not None:
            self._store.database.close()  # the next try makes new connections
        return False

    def _sift(self) -> bool:
        """Let go of the predictions that no store could take; return whether there were any."""
        mistakes = []
        for prediction in list(self._flight):
            try:
                writing.check(prediction)
            except EventError as mistake:
                LOG.warning("%s", mistake)
                mistakes.append(prediction)
        self._settle(mistakes, reason="invalid")
        return bool(mistakes)

    def _one_by_one(self) -> bool:
        """Write singly, and let go of what this database refuses; return False when it is the store after all."""
        assert self._store is not None  # noqa: S101  it was what refused the batch
        for prediction in list(self._flight):
            try:
                new = self._store.write([prediction])
            except EventError as mistake:
                if mistake.reason in TRANSIENT:
                    return False
                LOG.warning("prediction %r: %s", prediction.id, mistake)
                self._settle([prediction], reason="invalid")
            else:
                self._settle([prediction], written=new)
        return True

    def _settle(self, done: list[Prediction], *, written: int = 0, reason: str | None = None) -> None:
        """Take predictions out of flight: written (others of them stood there already), or dropped for a reason."""
        duplicates = len(done) - written if reason is None else 0
        with self._moving:
            gone = set(map(id, done))
            self._flight = [each for each in self._flight if id(each) not in gone]
            self._settled += len(done)
            self.written += written
            self.duplicates += duplicates
            self._moving.notify_all()
        if duplicates:
            _tell(self._on_duplicate, duplicates)
        if reason is not None and done:
            self._drop(reason, len(done))

    def _let_go(self) -> None:
        """Count what still waits as dropped."""
        with self._moving:
            left = [*self._flight, *self._queue]
            self._flight.clear()
            self._queue.clear()
            self._settled += len(left)
            self._moving.notify_all()
        if left:
            self._drop(self.fault.reason if self.fault else "closed", len(left))

    def _drop(self, reason: str, count: int) -> None:
        with self._counting:
            self._dropped[reason] += count
        _tell(self._on_drop, reason, count)

    def _sweep(self) -> None:
        """Delete a little of what has become too old, once an hour until nothing is left."""
        now = self._monotonic()
        if self._retention is None or self._store is None or (self._swept is not None and now - self._swept < SWEEP):
            return
        # A clock that jumps ahead must not empty the store: time passes no faster than the monotonic clock says.
        today = min(self._clock(), self._started[0] + now - self._started[1])
        try:
            deleted = self._store.purge(before=today - self._retention * DAY, chunks=1)
        except Exception as error:  # noqa: BLE001  the thread must outlive whatever a driver raises
            LOG.warning("retention: %s", error)
            self._swept = now
        else:
            if not any(deleted.values()):
                self._swept = now


def _tell(who: Callable[..., None] | None, *what: str | int) -> None:
    if who is not None:
        try:
            who(*what)
        except Exception:
            LOG.exception("telling of %s", what)


def _step_back() -> None:
    """Let the thread that serves go first where both want the same core; Linux keeps a priority a thread."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + BEHIND))
