from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from slimline import latency
from slimline.latency import Samples


def sleeper(seconds: float) -> Any:
    def run(arrays: dict[str, Any]) -> None:
        time.sleep(seconds * len(arrays["x"]))

    return run


def test_measure_times_every_model_on_every_batch() -> None:
    models = {"slow": sleeper(4e-4), "fast": sleeper(1e-4)}
    inputs = {size: {"x": np.zeros(size)} for size in (1, 4)}
    rounds: list[None] = []
    found = latency.measure(models, inputs, rounds=3, repeats=4, progress=lambda: rounds.append(None))
    assert set(found) == {"slow", "fast"}
    assert len(rounds) == 3
    for by_batch in found.values():
        assert set(by_batch) == {1, 4}
        for samples in by_batch.values():
            assert samples.seconds.shape == (3, 4)
            assert (samples.seconds > 0).all()
    assert found["slow"][1].p50 >= 4e-4
    ratio, (low, high) = latency.speedup(found["slow"][4], found["fast"][4], 0.95)
    assert ratio > 1.5
    assert low <= ratio <= high


def test_percentiles_are_in_milliseconds_over_all_calls() -> None:
    samples = Samples(np.arange(1, 101).reshape(10, 10) / 1000)
    assert samples.percentiles_ms() == {"p50": 50.5, "p95": 95.05, "p99": 99.01}
    assert samples.p50 == pytest.approx(0.0505)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 1000), st.floats(0.1, 10))
def test_the_interval_of_a_speedup_holds_it(rounds: int, repeats: int, seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    base, other = (Samples(scale * rng.lognormal(0, 0.5, (rounds, repeats))) for scale in (factor, 1.0))
    ratio, (low, high) = latency.speedup(base, other, 0.95)
    assert ratio == base.p50 / other.p50
    assert low <= ratio <= high
    assert latency.speedup(base, other, 0.95) == (ratio, [low, high])


def test_what_disturbs_both_sides_of_a_round_does_not_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    weather = rng.lognormal(0, 1, (40, 1))
    base, other = Samples(np.repeat(3 * weather, 5, 1)), Samples(np.repeat(weather, 5, 1))
    ratio, (low, high) = latency.speedup(base, other, 0.95)
    assert (low, ratio, high) == pytest.approx((3, 3, 3))


@pytest.mark.parametrize("size", [1, 3, 7])
def test_sample_inputs_are_real_rows_repeated_as_needed(size: int) -> None:
    rows: dict[str, NDArray[Any]] = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "unused": np.zeros(3)}
    batch = latency.sample_inputs({"inputs": [{"name": "x"}]}, [size], rows)[size]
    assert list(batch) == ["x"]
    assert batch["x"].dtype == np.float32
    np.testing.assert_array_equal(batch["x"], rows["x"][np.arange(size) % 3])


def fixed(values: list[float]) -> Samples:
    """Return rounds of one call each."""
    return Samples(np.array(values)[:, None])


def test_a_disturbed_measurement_is_taken_again_and_the_steadiest_kept() -> None:
    calm = {"teacher": {1: fixed([2.0] * 20)}, "last": {1: fixed([1.0] * 20)}}
    wild = {"teacher": {1: fixed([2.0] * 10 + [6.0] * 10)}, "last": {1: fixed([1.0] * 20)}}
    for runs, expected in (([wild, calm, wild], 2), ([calm], 1), ([wild, wild, wild], 3)):
        taken: list[Any] = []

        def once(taken: list[Any] = taken, runs: list[Any] = runs) -> Any:
            taken.append(runs[len(taken)])
            return taken[-1]

        found, spread = latency.steadiest(once, "teacher", 0.95)
        assert len(taken) == expected
        assert found is (calm if any(each is calm for each in runs) else wild)
        assert (spread <= latency.STEADY) is any(each is calm for each in runs)
