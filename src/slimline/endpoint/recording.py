"""Hands predictions to the event store, off the request's path."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from threading import Lock
from time import time
from typing import TYPE_CHECKING, Any

from slimline.endpoint.exchange import one_line
from slimline.endpoint.settings import Settings
from slimline.errors import EventError

if TYPE_CHECKING:
    from slimline.endpoint.core import Answered
    from slimline.predictor import Arrays

FLUSH_SECONDS = 10.0

log = logging.getLogger(__name__)


class Recorder:
    """Writes what was answered, when an event store is set.

    The store may be away, at the start too: predictions wait in the writer's bounded queue, and what finds no room is
    counted. Labels are refused meanwhile, since theirs is a promise.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.event_store if settings.events != "none" else ""
        self._settings = settings
        self._writer: Any = None
        self._store: Any = None
        self._opening = Lock()

    def open(self, dropped: Callable[[str, int], None]) -> None:
        """Start the writer; ``dropped(reason, count)`` hears of events that can't be stored."""
        if not self._url:
            return
        from slimline.events import EventWriter  # type: ignore[import-untyped]

        self._writer = EventWriter(self._url, on_drop=dropped)

    def record(self, answered: Answered, latency: Mapping[str, float], inputs: Arrays, *, shadow: bool = False) -> None:
        """Put one prediction into the writer's queue; never waits."""
        if self._writer is None:
            return
        from slimline.events import Prediction

        live = answered.live
        self._writer.put(
            Prediction(
                answered.id, time(), live.revision, live.variant, answered.labels, answered.probabilities,
                dict(latency), shadow,
            ),
            inputs,
        )  # fmt: skip

    def label(self, labels: list[dict[str, Any]]) -> list[Any]:
        """Write labels and return what became of each; they are durable then. Raises EventError."""
        if not self._url:
            raise EventError("no event store is set (SLIMLINE_EVENT_STORE)")
        from slimline.events import EventStore, Label

        with self._opening:
            if self._store is None:
                self._store = EventStore.open(self._url)
        return list(self._store.label([Label(**each) for each in labels]))

    def close(self) -> None:
        """Write out what is queued."""
        if self._writer is not None:
            try:
                self._writer.close(FLUSH_SECONDS)
            except EventError as error:
                log.warning("events: %s", one_line(error))
        if self._store is not None:
            self._store.close()
