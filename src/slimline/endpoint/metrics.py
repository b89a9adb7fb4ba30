"""Every metric of the endpoint, with its help and unit, in one place.

All carry ``revision`` and ``variant``. Label values come from the release (its labels), from this file (parts) or from
the HTTP standard (status codes), never from a request, so clients can't grow them. They add up over worker processes
where PROMETHEUS_MULTIPROC_DIR is set, as BentoML does.
"""

from __future__ import annotations

import os
from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    generate_latest,
    multiprocess,
)

from slimline.buckets import bounds
from slimline.endpoint.tally import Histogram, Histograms, Tally
from slimline.events import REASONS

PARTS = ("decode", "queue", "predict", "encode", "total")
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
FAULTS = ("500", "503")  # what the endpoint answers when the fault is its own
OUTCOMES = ("loaded", "refused")
OWN = ("revision", "variant")
CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()


class Metrics:
    """The endpoint's metrics in a registry of their own, so that several applications can share a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        at = self.registry
        self.duration = Histograms(
            "slimline_request_duration_seconds",
            "Seconds that a request spent in each part: decode, queue, predict, encode; total is all of it.",
            ("part", *OWN), registry=at,
        )  # fmt: skip
        self.predictions = Counter(
            "slimline_predictions",
            'Rows answered, by the label they were given; a row with several counts for each, one with none for "".',
            ("label", *OWN),
            registry=at,
        )
        self.errors = Counter(
            "slimline_errors", "Requests answered with an HTTP error, by its status.", ("status", *OWN), registry=at
        )
        self.batch_rows = Histogram(
            "slimline_batch_rows", "Rows that went through the model together.", OWN, buckets=ROWS, registry=at
        )
        self.events_dropped = Counter(
            "slimline_events_dropped",
            "Prediction events that could not be stored, by reason.",
            ("reason", *OWN),
            registry=at,
        )
        self.events_duplicates = Counter(
            "slimline_events_duplicates",
            "Prediction events left out because their id was written before for the same revision and variant.",
            OWN,
            registry=at,
        )
        self.samples_failed = Counter(
            "slimline_samples_failed",
            "Prediction events written without the sample of the chain they were drawn for.",
            OWN,
            registry=at,
        )
        self.reloads = Counter(
            "slimline_reloads", "Releases that were loaded or refused while serving.", ("outcome", *OWN), registry=at
        )
        self.shadow_dropped = Counter(
            "slimline_shadow_dropped",
            "Mirrored requests left out because the shadow was busy or failed.",
            OWN,
            registry=at,
        )
        self.in_progress = Gauge(
            "slimline_requests_in_progress",
            "Requests being answered now.",
            OWN,
            multiprocess_mode="livesum",
            registry=at,
        )
        self.waiting_rows = Gauge(
            "slimline_waiting_rows", "Rows in the queue now.", OWN, multiprocess_mode="livesum", registry=at
        )
        self.waiting_events = Gauge(
            "slimline_events_waiting", "Prediction events that the event store hasn't taken yet.", OWN,
            multiprocess_mode="livesum", registry=at,
        )  # fmt: skip
        self.ready = Gauge(
            "slimline_ready", "Worker processes that are ready with this release.", OWN,
            multiprocess_mode="livesum", registry=at,
        )  # fmt: skip

    def render(self) -> bytes:
        """Return the metrics of all worker processes in Prometheus' text format."""
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if not folder:
            return generate_latest(self.registry)
        sweep(Path(folder))
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def sweep(folder: Path) -> None:
    """Forget the gauges of worker processes that were killed: nobody else takes them out of the sums."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            path.unlink(missing_ok=True)


class Series:
    """One variant's series, looked up once: labels() costs more than counting does.

    What each request counts is gathered, and reaches the registry with ``flush``. What alerts ask the growth of is
    there from the start: of a series that appears with its first event, Prometheus sees no growth. Latencies are
    counted at the release's own ``objectives`` {part: seconds} too.
    """

    def __init__(
        self, metrics: Metrics, revision: str, variant: str, labels: list[str] | None,
        objectives: Mapping[str, float] | None = None, *, many: bool = False,
    ) -> None:  # fmt: skip
        own, held = (revision, variant), objectives or {}
        shown = [*(labels or []), *([""] if many or not labels else [])]  # any of several labels may be none
        self._parts = {part: Tally(metrics.duration.bounded(bounds(held.get(part)), part, *own)) for part in PARTS}
        self._labels = {label: metrics.predictions.labels(label, *own) for label in shown}
        self._answers: Counts[str] = Counts()
        self._batch_rows = Tally(metrics.batch_rows.labels(*own))
        self.in_progress = metrics.in_progress.labels(*own)
        self.waiting_rows = metrics.waiting_rows.labels(*own)
        self.waiting_events = metrics.waiting_events.labels(*own)
        self.ready = metrics.ready.labels(*own)
        self.shadow_dropped = metrics.shadow_dropped.labels(*own)
        self.duplicates = metrics.events_duplicates.labels(*own)
        self.failed_samples = metrics.samples_failed.labels(*own)
        self._dropped = {reason: metrics.events_dropped.labels(reason, *own) for reason in REASONS}
        self._reloads = {outcome: metrics.reloads.labels(outcome, *own) for outcome in OUTCOMES}
        for status in FAULTS:
            metrics.errors.labels(status, *own)
        self.own = own
        self._metrics = metrics

    def answered(self, latency: Mapping[str, float], batch: int, labels: Sequence[str] | None, rows: int) -> None:
        """Count one request: seconds by part, the rows it was batched with, and its rows' labels."""
        for part, seconds in latency.items():
            self._parts[part].observe(seconds)
        self._batch_rows.observe(batch)
        if labels is None:
            self._answers[""] += rows
        elif rows == 1:
            self._answers[labels[0]] += 1
        else:
            self._answers.update(labels)

    def flush(self) -> None:
        """Bring what was gathered to the registry: once a second, at a scrape, and at the end."""
        for tally in (*self._parts.values(), self._batch_rows):
            tally.flush()
        for answer, count in self._answers.items():
            for label in [answer] if answer in self._labels else answer.split(","):  # any of several: each counts
                if label in self._labels:
                    self._labels[label].inc(count)
        self._answers.clear()

    def end(self) -> None:
        """Let the gauges of a release that answers no more say so: a scrape would find their last values for ever."""
        for gauge in (self.in_progress, self.waiting_rows, self.waiting_events, self.ready):
            gauge.set(0)

    def error(self, status: int) -> None:
        """Count a request that was answered with an HTTP error."""
        self._metrics.errors.labels(str(status), *self.own).inc()

    def dropped(self, reason: str, count: int) -> None:
        """Count events that were not stored, for one of REASONS."""
        self._dropped[reason].inc(count)

    def reloaded(self, outcome: str) -> None:
        """Count a release that was loaded or refused while serving."""
        self._reloads[outcome].inc()
