"""Every metric of the monitor, with its help and unit, in one place, and how they are shown.

All carry ``revision`` and ``variant``, but those of the monitor itself. What is shown is what is watched now, so a
revision that answers no more takes its series with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from slimline.monitor.signal import Sample
from slimline.monitor.standing import Standing

OWN = ("revision", "variant")
MOST = 200  # series of one metric, revision and variant: features and labels come from releases, and may be many


class Declared(NamedTuple):
    """A metric: its help, its labels, and whether it only grows."""

    help: str
    labels: tuple[str, ...] = ()
    counter: bool = False


METRICS: dict[str, Declared] = {
    "slimline_regression_state": Declared("Where a signal stands: 0 ok, 1 watch, 2 regressed.", ("signal", *OWN)),
    "slimline_evidence": Declared(
        "The e-value of a signal's test; it pages at slimline_evidence_threshold.", ("signal", *OWN)
    ),
    "slimline_evidence_threshold": Declared("The e-value that pages: the average run length.", ("signal", *OWN)),
    "slimline_accuracy_ratio": Declared(
        "The task's quality by labels: estimate, its interval, the floor.", ("bound", *OWN)
    ),
    "slimline_class_accuracy_ratio": Declared(
        "The share of each label's recent rows that were right.", ("label", *OWN)
    ),
    "slimline_accuracy_estimate_ratio": Declared("Accuracy estimated without labels, by confidence.", ("bound", *OWN)),
    "slimline_calibration_error_ratio": Declared(
        "Expected calibration error of the confidences, on validation rows.", OWN
    ),
    "slimline_estimate_error_ratio": Declared("Estimated less labelled accuracy, on rows that have a label.", OWN),
    "slimline_agreement_ratio": Declared(
        "The share of sampled rows that teacher and release answer alike.", ("bound", *OWN)
    ),
    "slimline_drift_score": Declared(
        "How far a feature of the traffic is from the release's reference.", ("feature", *OWN)
    ),
    "slimline_latency_seconds": Declared("Quantiles of the last 500 requests, whole.", ("quantile", *OWN)),
    "slimline_slow_ratio": Declared(
        "The share of requests beyond the objective of a part, over a window.", ("part", "window", *OWN)
    ),
    "slimline_burn_rate": Declared(
        "How many times faster than allowed the latency objective is used up.", ("part", "window", *OWN)
    ),
    "slimline_latency_objective_seconds": Declared("What a part of a request may take.", ("part", *OWN)),
    "slimline_error_ratio": Declared("The share of requests answered with 5xx lately.", OWN),
    "slimline_label_coverage_ratio": Declared("The share of rows old enough to have a label that have one.", OWN),
    "slimline_label_delay_seconds": Declared(
        "The time from an answer to its label: quantiles of the last labels.", ("quantile", *OWN)
    ),
    "slimline_idle_seconds": Declared("Time since the last answer.", OWN),
    "slimline_watched_rows_total": Declared("Rows answered, as read from the event store.", OWN, counter=True),
    "slimline_watched_labels_total": Declared("Labels that found their row.", OWN, counter=True),
    "slimline_signal_failed": Declared("1 where a signal failed and is watched no more.", ("signal", *OWN)),
    "slimline_blame_info": Declared("What an open alarm is blamed on; always 1.", ("signal", "verdict", "stage", *OWN)),
    "slimline_alarm_open": Declared("1 while an alarm on the signal holds.", ("signal", *OWN)),
    "slimline_probe_latency_seconds": Declared("What a probe's requests took in the last round.", ("quantile", *OWN)),
    "slimline_probe_up": Declared("1 when the last probe was answered.", OWN),
    "slimline_monitor_events_total": Declared("Predictions and labels taken from the event store.", (), counter=True),
    "slimline_monitor_lag_seconds": Declared("Age of the newest event that was read, while more wait; else 0."),
    "slimline_monitor_last_poll_seconds": Declared("Unix time at which the event store was last read."),
    "slimline_monitor_state_up": Declared("1 when alarms and checkpoint could be written at the last try."),
    "slimline_monitor_store_up": Declared("1 when the event store could be read at the last try."),
}


class Shown(NamedTuple):
    """A value of a metric with all its labels."""

    metric: str
    value: float
    labels: Mapping[str, str]


def of_signals(own: tuple[str, str], standings: Iterable[Standing], samples: Iterable[Sample]) -> Iterator[Shown]:
    """Return what the signals of one revision and variant show; of several standings of one name the worst.

    Where there are too many, details (``accuracy/shirt``) are left out, the best ones first.
    """
    names = dict(zip(OWN, own, strict=True))
    worst: dict[str, Standing] = {}
    for each in standings:
        if each.signal not in worst or each.state > worst[each.signal].state:
            worst[each.signal] = each
    shown = sorted(worst.values(), key=lambda each: ("/" in each.signal, -each.state, -(each.evidence or 0.0)))
    for each in shown[:MOST]:
        labels = {"signal": each.signal} | names
        yield Shown("slimline_regression_state", float(each.state), labels)
        if each.evidence is not None:
            yield Shown("slimline_evidence", each.evidence, labels)
        if each.threshold is not None:
            yield Shown("slimline_evidence_threshold", each.threshold, labels)
    counts: dict[str, int] = {}
    for sample in samples:
        counts[sample.metric] = counts.get(sample.metric, 0) + 1
        if counts[sample.metric] <= MOST:
            yield Shown(sample.metric, sample.value, dict(sample.labels) | names)


class Exporter(Collector):
    """Shows what was last put in; a scrape never waits for the monitor's work."""

    def __init__(self) -> None:
        self._shown: tuple[Shown, ...] = ()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def put(self, shown: Iterable[Shown]) -> None:
        """Replace everything that is shown. Raises KeyError for a metric that isn't declared."""
        found = tuple(shown)
        for each in found:
            missing = set(METRICS[each.metric].labels) ^ each.labels.keys()
            if missing:
                raise KeyError(f"{each.metric}: labels {sorted(missing)}")
        self._shown = found

    def collect(self) -> Iterator[Metric]:
        """Yield every metric that has a value."""
        by_name: dict[str, list[Shown]] = {}
        for each in self._shown:
            by_name.setdefault(each.metric, []).append(each)
        for name, values in by_name.items():
            declared = METRICS[name]
            family = (CounterMetricFamily if declared.counter else GaugeMetricFamily)(
                name.removesuffix("_total"), declared.help, labels=declared.labels
            )
            for each in values:
                family.add_metric([each.labels[label] for label in declared.labels], each.value)
            yield family

    def render(self) -> bytes:
        """Return Prometheus' text format."""
        return generate_latest(self.registry)
