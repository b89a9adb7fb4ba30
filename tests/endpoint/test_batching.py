"""Batches are whoever is there: alone at once, together under load, and one bad request fails no other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimline.endpoint.batching import Batcher, batch_limit
from slimline.endpoint.exchange import RefusedError
from slimline.endpoint.speed import Speed
from slimline.predictor import Arrays

QUICK = {"1": {"p50": 0.01}, "32": {"p50": 0.1}}
SLOW = {"1": {"p50": 20.0}, "32": {"p50": 60.0}}


class Doubling:
    """A model that doubles its input and remembers its batches and threads."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[int] = []
        self.threads: set[str] = set()
        self.seconds = seconds

    def __call__(self, inputs: Arrays) -> Arrays:
        x = inputs["x"]
        self.batches.append(len(x))
        self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        if (x < 0).any():
            raise ValueError("negative")
        return {"y": 2 * x}


def batcher(model: Callable[[Arrays], Arrays], measured: Any = QUICK, **given: Any) -> Batcher:
    return Batcher(model, Speed(measured), **{"max_rows": 8, "max_waiting": 100, **given})


async def ask(on: Batcher, *values: float, width: int = 1) -> Any:
    return await on.predict({"x": np.full((len(values), width), np.array(values)[:, None])}, len(values))


def test_an_idle_model_answers_at_once_on_the_loop() -> None:
    model = Doubling()

    async def run() -> None:
        made = batcher(model)
        for value in range(3):
            result = await ask(made, value)
            assert (result.outputs["y"][0, 0], result.queue, result.rows) == (2 * value, 0.0, 1)
            await asyncio.sleep(0)

    asyncio.run(run())
    assert model.batches == [1, 1, 1]
    assert model.threads == {"MainThread"}


def test_who_comes_in_the_same_turn_goes_together() -> None:
    model = Doubling()

    async def run() -> list[Any]:
        made = batcher(model)
        return await asyncio.gather(*(ask(made, value) for value in range(20)))

    results = asyncio.run(run())
    assert [result.outputs["y"][0, 0] for result in results] == [2 * value for value in range(20)]
    assert model.batches == [1, 8, 8, 3]


def test_a_slow_model_runs_in_the_worker_thread_and_gathers_meanwhile() -> None:
    model = Doubling(0.05)

    async def run() -> list[Any]:
        made = batcher(model, SLOW)
        first = asyncio.create_task(ask(made, 1))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(ask(made, value)) for value in (2, 3, 4)]
        turns = 0
        while not first.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns > 10  # the loop went on
        results = [await first, *[await each for each in others]]
        made.close()
        return results

    results = asyncio.run(run())
    assert [result.outputs["y"][0, 0] for result in results] == [2, 4, 6, 8]
    assert model.batches == [1, 3]
    assert "MainThread" not in model.threads
    assert results[1].queue > 0.02


def test_one_bad_request_fails_no_other() -> None:
    model = Doubling()

    async def run() -> list[Any]:
        made = batcher(model)
        return await asyncio.gather(*(ask(made, value) for value in (0, 1, -1, 3)), return_exceptions=True)

    first, second, bad, last = asyncio.run(run())
    assert (first.outputs["y"], second.outputs["y"], last.outputs["y"]) == (0, 2, 6)
    assert isinstance(bad, ValueError)


def test_only_equal_shapes_go_together() -> None:
    model = Doubling()

    async def run() -> list[Any]:
        made = batcher(model)
        return await asyncio.gather(*(ask(made, value, width=1 + value // 2) for value in range(6)))

    results = asyncio.run(run())
    assert [result.outputs["y"].shape for result in results] == [(1, 1), (1, 1), (1, 2), (1, 2), (1, 3), (1, 3)]
    assert model.batches == [1, 1, 2, 2]


def test_a_full_queue_sheds_with_the_time_to_wait() -> None:
    async def run() -> None:
        made = batcher(Doubling(0.05), SLOW, max_waiting=2)
        tasks = [asyncio.create_task(ask(made, value)) for value in range(4)]
        await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        made.close()
        refused = results[3]
        assert isinstance(refused, RefusedError)
        assert (refused.status, refused.headers) == (429, {b"retry-after": b"1"})
        assert not any(isinstance(result, Exception) for result in results[:3])

    asyncio.run(run())


def test_who_would_wait_too_long_is_shed_at_once() -> None:
    async def run() -> list[Any]:
        made = batcher(Doubling(0.02), SLOW, max_wait=0.03, max_rows=1)
        results = await asyncio.gather(*(ask(made, value) for value in range(20)), return_exceptions=True)
        made.close()
        return results

    results = asyncio.run(run())
    refused = [isinstance(result, RefusedError) for result in results]
    assert not any(refused[:3])
    assert all(refused[12:])  # 10 rows take 33 ms, says SLOW


def test_who_has_left_is_not_computed() -> None:
    model = Doubling(0.03)

    async def run() -> None:
        made = batcher(model, SLOW)
        tasks = [asyncio.create_task(ask(made, value)) for value in range(3)]
        await asyncio.sleep(0.005)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        made.close()
        assert made.waiting_rows == 0
        assert made.idle

    asyncio.run(run())
    assert model.batches == [1, 1]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.sampled_from([QUICK, SLOW]))
def test_everybody_gets_their_own_rows(sizes: list[int], measured: Any) -> None:
    async def run() -> None:
        made = batcher(Doubling(), measured, max_waiting=1000)
        values = [[float(100 * number + row) for row in range(size)] for number, size in enumerate(sizes)]
        results = await asyncio.gather(*(ask(made, *each) for each in values))
        made.close()
        for own, result in zip(values, results, strict=True):
            np.testing.assert_array_equal(result.outputs["y"][:, 0], 2 * np.array(own))

    asyncio.run(run())


def test_the_best_batch_is_where_more_rows_bring_no_more_speed() -> None:
    pays = Speed({"1": {"p50": 1.0}, "8": {"p50": 2.0}, "32": {"p50": 7.9}})
    assert pays.best_rows(64) == 8  # 4,000 rows a second, 32 brings 4,051
    assert pays.best_rows(4) == 1
    assert Speed({"1": {"p50": 1.0}, "8": {"p50": 9.0}}).best_rows(64) == 1
    assert Speed({}).best_rows(64) == 64


def test_the_estimate_follows_this_machine() -> None:
    speed = Speed({"1": {"p50": 1.0}, "3": {"p50": 2.0}, "5": {"p50": 2.0}})
    assert speed.estimate(2) == pytest.approx(1.5e-3)
    assert speed.estimate(10) == pytest.approx(4e-3)
    for _ in range(200):
        speed.observe(1, 3e-3)
    assert speed.estimate(2) == pytest.approx(4.5e-3, rel=0.01)
    before = speed.estimate(1)
    speed.observe(1, 10.0)  # the process was stopped for a while
    assert speed.estimate(1) < 1.06 * before


def test_a_fixed_batch_axis_is_kept() -> None:
    assert batch_limit({"inputs": [{"shape": [1, 3]}]}, 32) == 1
    assert batch_limit({"inputs": [{"shape": ["batch", 3]}]}, 32) == 32
