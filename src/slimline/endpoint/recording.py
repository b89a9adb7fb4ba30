"""Hands predictions to the event store, off the request's path, and labels to it, on theirs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from threading import Lock
from time import time
from typing import TYPE_CHECKING, Any, cast

from slimline.endpoint.settings import Settings
from slimline.errors import EventError
from slimline.events import EventStore, EventWriter, Label, Outcome, Prediction, Sampler
from slimline.events.sampler import Mode

if TYPE_CHECKING:
    from slimline.endpoint.core import Answered
    from slimline.endpoint.loaded import Loaded
    from slimline.endpoint.metrics import Series
    from slimline.predictor import Arrays

FLUSH_SECONDS = 10.0

log = logging.getLogger(__name__)


class Recorder:
    """Writes what was answered, when an event store is set.

    The store may be away, at the start too: predictions wait in the writer's bounded queue, and what finds no room is
    counted. Labels are refused meanwhile, since theirs is a promise.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.event_store
        self._settings = settings
        self._sampler = Sampler(share=settings.sample, mode=cast(Mode, settings.inputs))
        self._writer: EventWriter | None = None
        self._store: EventStore | None = None
        self._opening = Lock()

    def open(self, series: Callable[[], Series]) -> None:
        """Start the writer; the series of who answers then count what can't be stored as it came."""
        if self._url:
            self._writer = EventWriter(
                self._url, retention=self._settings.retention_days or None, sampler=self._sampler,
                on_drop=lambda reason, count: series().dropped(reason, count),
                on_duplicate=lambda count: series().duplicates.inc(amount=count),
                on_failed_sample=lambda count: series().failed_samples.inc(amount=count),
            )  # fmt: skip

    def serve(self, live: Iterable[Loaded]) -> None:
        """Say which releases answer now, so that their chains can be sampled."""
        self._sampler.serve({each.revision: each.directory for each in live})

    @property
    def waiting(self) -> int:
        """Predictions that the store hasn't taken yet."""
        return 0 if self._writer is None else self._writer.pending

    def record(self, answered: Answered, latency: dict[str, float], inputs: Arrays, *, shadow: bool = False) -> None:
        """Put one prediction into the writer's queue; never waits."""
        if self._writer is None:
            return
        live = answered.live
        prediction = Prediction(
            answered.id, time(), live.revision, live.variant, answered.labels, answered.probabilities, latency,
            shadow,
        )  # fmt: skip
        self._writer.put(prediction, inputs)

    def label(self, labels: list[dict[str, Any]]) -> list[Outcome]:
        """Write labels and return what became of each; they are durable then. Raises EventError."""
        if not self._url:
            raise EventError("no event store is set; SLIMLINE_EVENT_STORE names one")
        with self._opening:
            if self._store is None:
                self._store = EventStore.open(self._url)
        return self._store.label([Label(**each) for each in labels])

    def close(self) -> None:
        """Write out what is queued; what can't be within ten seconds is counted and said."""
        if self._writer is not None and not self._writer.close(FLUSH_SECONDS):
            log.error("events were lost at the end: %s", self._writer.dropped)
        self._sampler.close()
        if self._store is not None:
            self._store.close()
