"""Slow or failed requests: a sustained excess is found within two minutes, bursts and bad luck raise nothing."""

from __future__ import annotations

import numpy as np
import pytest

from slimline.monitor.burn import Burn
from slimline.monitor.standing import State

RUN_LENGTH = 1e6


def run(burn: Burn, rates: list[float], *, start: float = 1e9, per_second: float = 5.0, seed: int = 0) -> float | None:
    """Feed a request stream, a rate of bad ones for each second, and return the second of the alarm."""
    rng = np.random.default_rng(seed)
    for second, rate in enumerate(rates):
        count = rng.poisson(per_second)
        time = np.sort(start + second + rng.random(count))
        burn.feed(time, np.ones(count), (rng.random(count) < rate).astype(float))
        burn.tick(start + second + 1)
        if burn.state is State.REGRESSED:
            return second
    return None


@pytest.mark.parametrize(("rate", "within"), [(1.0, 60), (0.2, 90), (0.1, 120)])
@pytest.mark.parametrize("per_second", [1.0, 20.0])
def test_a_sustained_excess_is_found_within_two_minutes(rate: float, within: int, per_second: float) -> None:
    burn = Burn(0.01, RUN_LENGTH)
    assert run(burn, [0.005] * 600, per_second=per_second) is None
    found = run(burn, [rate] * 300, start=1e9 + 600, per_second=per_second, seed=1)
    assert found is not None
    assert found <= within * (2 if per_second < 5 and rate < 0.5 else 1)


def test_a_burst_raises_nothing() -> None:
    """A stall of three seconds: every request in it is slow."""
    burn = Burn(0.01, RUN_LENGTH)
    assert run(burn, ([0.0] * 117 + [1.0] * 3) * 20, per_second=50) is None


def test_it_keeps_its_run_length_at_the_edge() -> None:
    """A day of blocks at exactly what is allowed, at a threshold of a thousand blocks, alarms seldom."""
    alarms = 0
    rng = np.random.default_rng(0)
    blocks = 20_000
    burn = Burn(0.05, 1000.0)
    for number in range(blocks):
        bad = float(rng.binomial(50, 0.05))
        before = burn.detector.at_alarm.sum()
        burn.feed(np.array([number * 10.0]), np.array([50.0]), np.array([bad]))
        alarms += burn.detector.at_alarm.sum() != before
    assert alarms <= blocks / 1000


def test_an_alarm_ends_when_five_minutes_were_good() -> None:
    burn = Burn(0.01, RUN_LENGTH)
    run(burn, [1.0] * 100)
    assert burn.state is State.REGRESSED
    assert run(burn, [0.0] * 200, start=1e9 + 100) == 0, "it still holds"
    for second in range(700):
        burn.feed(np.array([1e9 + 300 + second]), np.ones(1), np.zeros(1))
    assert burn.state is not State.REGRESSED


def test_batches_of_any_size_are_the_same() -> None:
    rng = np.random.default_rng(3)
    time = np.sort(1e9 + rng.random(3000) * 500)
    bad = (rng.random(3000) < 0.03).astype(float)
    one, many = Burn(0.01, RUN_LENGTH), Burn(0.01, RUN_LENGTH)
    one.feed(time, np.ones(3000), bad)
    for start in range(0, 3000, 7):
        part = slice(start, start + 7)
        many.feed(time[part], np.ones(len(time[part])), bad[part])
    assert one.dump() == many.dump()
    again = Burn(0.01, RUN_LENGTH)
    again.restore(many.dump())
    assert again.dump() == many.dump()


def test_a_clock_that_was_set_back_begins_anew() -> None:
    burn = Burn(0.01, RUN_LENGTH)
    burn.feed(np.array([2e9]), np.ones(1), np.zeros(1))
    assert run(burn, [1.0] * 100) is not None


def test_memory_is_bounded() -> None:
    burn = Burn(0.01, RUN_LENGTH)
    time = 1e9 + np.arange(0, 86_400 * 3, 30.0)
    burn.feed(time, np.ones(len(time)), np.zeros(len(time)))
    assert len(burn.dump()["minutes"]) == 360
