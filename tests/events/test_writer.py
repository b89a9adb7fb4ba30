"""The writer never blocks, and writes all that it is given, in order."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from slimline.errors import EventError
from slimline.events import EventStore
from tests.events.conftest import Make, Writers, ids, until


def test_all_that_is_put_is_written_in_order(url: str, writers: Writers, make: Make) -> None:
    writer = writers(url, batch=64)
    assert all(writer.put(make(f"p{i}", float(i))) for i in range(1000))
    assert writer.flush(30.0)
    assert (writer.written, writer.pending, writer.dropped, writer.fault) == (1000, 0, {}, None)
    assert ids(url) == [f"p{i}" for i in range(1000)]


def test_it_is_written_soon_without_flush(sqlite_url: str, writers: Writers, make: Make) -> None:
    writer = writers(sqlite_url)
    writer.put(make("x"))
    until(lambda: writer.written == 1)


def test_the_store_is_there_before_the_first_prediction(sqlite_url: str, writers: Writers) -> None:
    """A monitor that starts beside an endpoint nobody has asked yet finds it."""
    writers(sqlite_url)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            store = EventStore.open(sqlite_url, create=False)
        except EventError:
            time.sleep(0.02)
        else:
            with store:
                assert store.counts() == {"predictions": 0, "labels": 0, "early": 0}
            return
    pytest.fail("no store")


def test_close_writes_what_waits_and_takes_no_more(sqlite_url: str, writers: Writers, make: Make) -> None:
    writer = writers(sqlite_url, interval=60.0)
    for i in range(10):
        writer.put(make(f"p{i}"))
    assert writer.close(10.0)
    assert not writer.put(make("late"))
    assert writer.dropped == {"closed": 1}
    assert len(ids(sqlite_url)) == 10


def test_threads_put_at_once(sqlite_url: str, writers: Writers, make: Make) -> None:
    writer = writers(sqlite_url)

    def put(who: int) -> None:
        for i in range(200):
            writer.put(make(f"{who}-{i}"))

    threads = [threading.Thread(target=put, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.flush(30.0)
    assert len(set(ids(sqlite_url))) == writer.written == 800


def test_an_id_used_twice_is_counted(sqlite_url: str, writers: Writers, make: Make) -> None:
    told: list[int] = []
    writer = writers(sqlite_url, on_duplicate=told.append)
    for _ in range(3):
        writer.put(make("x"))
    assert writer.flush(10.0)
    assert (writer.written, writer.duplicates, writer.dropped) == (1, 2, {})
    until(lambda: sum(told) == 2)


def test_outputs_of_ten_thousand_rows(sqlite_url: str, writers: Writers, make: Make) -> None:
    writer = writers(sqlite_url)
    outputs = np.random.default_rng(0).random((10_000, 10), np.float32)
    writer.put(make("x", labels=["a"] * 10_000, outputs=outputs))
    assert writer.flush(10.0)
    with EventStore.open(sqlite_url) as store:
        np.testing.assert_array_equal(store.find("x")[0].outputs, outputs)
