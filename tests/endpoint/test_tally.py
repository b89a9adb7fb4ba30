"""Many observations at once are the same as each by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Single

from slimline.endpoint.tally import Histogram, Tally

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
