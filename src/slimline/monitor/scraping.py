"""What the endpoint counts itself, read from its /metrics: requests, failures, dropped events."""

from __future__ import annotations

import logging
import math
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from queue import SimpleQueue
from typing import NamedTuple, Self

from prometheus_client.parser import text_string_to_metric_families as parsed

EVERY = 5.0
TIMEOUT = 5.0
REQUESTS, ERRORS, DROPPED = (
    "slimline_request_duration_seconds_count",
    "slimline_errors_total",
    "slimline_events_dropped_total",
)
log = logging.getLogger(__name__)
Own = tuple[str, str]


class Counted(NamedTuple):
    """What was counted for one revision and variant since the look before; ``requests`` includes those that failed."""

    own: Own
    time: float
    requests: int
    failed: int
    dropped: int


class Scraper:
    """Reads ``url`` (…/metrics) every five seconds in a thread of its own; the first look says nothing yet."""

    def __init__(self, url: str) -> None:
        self.url = url if url.endswith("/metrics") else f"{url.rstrip('/')}/metrics"
        self.is_up = True
        self._found: SimpleQueue[Counted] = SimpleQueue()
        self._before: dict[tuple[Own, str], float] | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)

    def start(self) -> Self:
        """Begin to read."""
        self._thread.start()
        return self

    def take(self) -> Iterator[Counted]:
        """Yield what was counted since the last call."""
        while not self._found.empty():
            yield self._found.get()

    def close(self) -> None:
        """Stop reading."""
        self._over.set()

    def look(self) -> None:
        """Read once."""
        try:
            with urllib.request.urlopen(self.url, timeout=TIMEOUT) as answer:  # noqa: S310  (the user names it)
                totals = count(answer.read().decode())
        except Exception as error:  # noqa: BLE001  (the thread must outlive whatever it answers)
            if self.is_up:
                said = f"{type(error).__name__}: {' '.join(str(error).split())}"
                log.warning("%s: can't be read (%s); errors aren't seen until it answers", self.url, said)
            self.is_up = False
            return
        self.is_up = True
        before, self._before = self._before, totals
        if before is None:
            return
        grown: dict[Own, Counter[str]] = {}
        for (own, name), value in totals.items():
            last = before.get((own, name), 0.0)
            grown.setdefault(own, Counter())[name] += int(value - last if value >= last else value)  # it restarted
        now = time.time()
        for own, each in grown.items():
            self._found.put(Counted(own, now, each[REQUESTS] + each[ERRORS], each[ERRORS], each[DROPPED]))

    def _run(self) -> None:
        while not self._over.is_set():
            self.look()
            self._over.wait(EVERY)


def count(text: str) -> dict[tuple[Own, str], float]:
    """Return {((revision, variant), metric): total} of an endpoint's metrics: all requests, 5xx, dropped events."""
    totals: Counter[tuple[Own, str]] = Counter()
    for family in parsed(text):
        for name, labels, value, *_ in family.samples:
            wanted = (
                (name == REQUESTS and labels.get("part") == "total")
                or (name == ERRORS and labels.get("status", "").startswith("5"))
                or name == DROPPED
            )
            if wanted and labels.get("revision") and "variant" in labels and math.isfinite(value):
                totals[(labels["revision"], labels["variant"]), name] += value  # type: ignore[assignment]  # typeshed counts in int
    return dict(totals)
