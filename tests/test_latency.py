from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from types import SimpleNamespace
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
    models = {"slow": sleeper(4e-3), "fast": sleeper(1e-3)}
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
    assert found["slow"][1].p50 >= 4e-3
    ratio, (low, high) = latency.speedup(found["slow"][4], found["fast"][4], 0.95)
    assert ratio > 1.5
    assert low <= ratio <= high


class Machine:
    """A clock that calls drive on: one second each, more while a model is cold or the call before was another's."""

    COLD = 5  # calls that a model takes to run at full speed

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, int]] = []
        self.pauses: list[int] = []

    def model(self, name: str) -> Callable[[dict[str, Any]], None]:
        def call(arrays: dict[str, Any]) -> None:
            job = (name, len(arrays["x"]))
            self.now += 1.0
            if self.calls.count(job) < self.COLD:
                self.now += 100.0
            if not self.calls or self.calls[-1] != job:
                self.now += 10.0
            self.calls.append(job)

        return call

    def sleep(self, seconds: float) -> None:
        assert seconds == latency.PAUSE_S
        self.pauses.append(len(self.calls))

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=made.perf_counter, sleep=made.sleep))
    return made


JOBS = [("a", 1), ("a", 4), ("b", 1), ("b", 4)]


def observe(machine: Machine, rounds: int, repeats: int, seed: int = 0) -> tuple[Any, list[list[tuple[str, int]]]]:
    """Measure two models on two batches; return the samples and each round's order of jobs."""
    inputs = {size: {"x": np.zeros(size)} for size in (1, 4)}
    models = {name: machine.model(name) for name in ("a", "b")}
    found = latency.measure(models, inputs, rounds=rounds, repeats=repeats, seed=seed, most=math.inf)
    groups = [machine.calls[start : start + 1 + repeats] for start in machine.pauses]
    assert all(len(set(group)) == 1 for group in groups), "a group is calls of one job, its first one not timed"
    return found, [[group[0] for group in groups[at : at + len(JOBS)]] for at in range(0, len(groups), len(JOBS))]


def test_every_round_measures_every_job_once_in_an_order_of_its_own(machine: Machine) -> None:
    _, orders = observe(machine, rounds=12, repeats=5)
    assert len(orders) == 12
    assert all(sorted(order) == JOBS for order in orders)
    assert len({tuple(order) for order in orders}) > 6
    assert {order[0] for order in orders} == set(JOBS), "none is always the one that follows another"


def test_the_seed_decides_the_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []
    for seed in (0, 0, 1):
        made = Machine()
        monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=made.perf_counter, sleep=made.sleep))
        orders.append(observe(made, rounds=4, repeats=2, seed=seed)[1])
    assert orders[0] == orders[1] != orders[2]


def test_what_is_cold_is_not_timed(machine: Machine) -> None:
    """Neither a model's first calls ever, nor the first after another model ran."""
    found, _ = observe(machine, rounds=3, repeats=5)
    assert Counter(job for job, _ in groupby(machine.calls[: machine.pauses[0]])) == Counter(JOBS)
    for name, batch in JOBS:
        np.testing.assert_array_equal(found[name][batch].seconds, np.ones((3, 5)))


def test_another_clock_may_time(machine: Machine) -> None:
    machine.COLD = 0
    inputs = {1: {"x": np.zeros(1)}}
    found = latency.measure({"a": machine.model("a")}, inputs, rounds=2, repeats=3, clock=lambda: 7 * machine.now)
    np.testing.assert_array_equal(found["a"][1].seconds, np.full((2, 3), 7.0))


def test_slow_models_are_called_less_often(machine: Machine) -> None:
    machine.COLD = 0
    lengths = {1: [{"x": np.zeros(1)}], 4: [{"x": np.zeros(4)}]}
    models = {name: machine.model(name) for name in ("a", "b")}
    for most, shape in ((10_000.0, (12, 5)), (200.0, (12, 1)), (1.0, (latency.LEAST, 1))):
        found = latency.measure(models, lengths, rounds=12, repeats=5, most=most)
        assert {samples.seconds.shape for by in found.values() for samples in by.values()} == {shape}


def test_fewer_calls_still_take_every_batch_in_turn() -> None:
    seen: list[int] = []

    def slow(arrays: dict[str, Any]) -> None:
        seen.append(int(arrays["x"][0]))
        time.sleep(0.02)

    batches = {1: [{"x": np.full(1, at)} for at in range(4)]}
    found = latency.measure({"only": slow}, batches, rounds=8, repeats=4, pause=0.0, most=0.2)
    rounds, calls = found["only"][1].seconds.shape
    assert rounds * (calls + 1) < 8 * 5
    assert set(seen) == {0, 1, 2, 3}


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
