"""Many observations at once are the same as each by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as Single

from slimline.endpoint.tally import Histogram, Histograms, Tally

BOUNDS = (0.001, 0.01, 0.1)
observed = st.lists(st.floats(0, 1) | st.sampled_from(BOUNDS), max_size=30)


@given(st.lists(observed, max_size=4))
def test_a_tally_ends_where_single_observations_do(rounds: list[list[float]]) -> None:
    registries = CollectorRegistry(), CollectorRegistry()
    many = Histogram("seconds", "How long.", ("part",), buckets=BOUNDS, registry=registries[0]).labels("total")
    single = Single("seconds", "How long.", ("part",), buckets=BOUNDS, registry=registries[1]).labels("total")
    tally = Tally(many)
    for values in rounds:
        for value in values:
            tally.observe(value)
            single.observe(value)
        tally.flush()
    for le in (*map(str, BOUNDS), "+Inf"):
        labels = {"part": "total", "le": le}
        assert registries[0].get_sample_value("seconds_bucket", labels) == registries[1].get_sample_value(
            "seconds_bucket", labels
        )
    sums = [each.get_sample_value("seconds_sum", {"part": "total"}) for each in registries]
    assert sums[0] is not None
    assert abs(sums[0] - (sums[1] or 0.0)) < 1e-9


def test_the_library_keeps_a_histogram_as_add_writes_to_it() -> None:
    """No public way adds many observations at once."""
    child = Histogram("seconds", "How long.", buckets=BOUNDS, registry=None)
    assert hasattr(child, "_sum"), "prometheus_client keeps the sum elsewhere: mend Histogram.add"
    assert len(getattr(child, "_buckets", [])) == len(BOUNDS) + 1, "it keeps counts elsewhere: mend Histogram.add"


WORKER = """
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from slimline.endpoint.tally import Histograms, Tally
histogram = Histograms("seconds", "How long.", ("part",), registry=CollectorRegistry()).bounded((0.001, 0.1), "total")
tally = Tally(histogram)
for value in (0.0005, 0.05, 0.05, 2.0):
    tally.observe(value)
tally.flush()
print(histogram.bounds)
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def test_what_worker_processes_gathered_is_in_the_files_that_they_share(tmp_path: Path) -> None:
    shared = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", WORKER], env=shared, check=True, capture_output=True, text=True)
    bounds, *lines = done.stdout.splitlines()
    assert bounds == "[0.001, 0.1]"
    counts = {le: f'seconds_bucket{{le="{le}",part="total"}} {count}' for le, count in (("0.001", 1.0), ("0.1", 3.0))}
    assert {*counts.values(), 'seconds_count{part="total"} 4.0', 'seconds_sum{part="total"} 2.1005'} <= {*lines}


def test_histograms_of_the_same_bounds_are_shown_as_one_metrics_children_are() -> None:
    registries = CollectorRegistry(), CollectorRegistry()
    own = Histograms("seconds", "How long.", ("part",), registry=registries[0])
    shared = Single("seconds", "How long.", ("part",), buckets=BOUNDS, registry=registries[1])
    for part, value in (("total", 0.05), ("decode", 0.001), ("total", 2.0)):
        own.bounded(BOUNDS, part).observe(value)
        shared.labels(part).observe(value)
    shown = [
        [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]
        for registry in registries
    ]
    assert shown[0] == shown[1]
    assert 'seconds_bucket{le="0.1",part="total"} 1.0' in shown[0]


def test_each_histogram_keeps_the_bounds_that_it_was_made_with() -> None:
    registry = CollectorRegistry()
    own = Histograms("seconds", "How long.", ("part",), registry=registry)
    assert own.bounded((0.1,), "decode") is own.bounded((0.2,), "decode")
    assert own.bounded((0.2,), "total").bounds == [0.2]
    bounds = [
        (sample.labels["part"], sample.labels["le"])
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "seconds_bucket"
    ]
    assert bounds == [("decode", "0.1"), ("decode", "+Inf"), ("total", "0.2"), ("total", "+Inf")]
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Single("seconds", "Again.", registry=registry)
