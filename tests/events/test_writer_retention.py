"""What is too old is deleted while the writer goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimline.events import EventStore, Label
from tests.events.conftest import Make, Writers, ids, until


def test_what_is_too_old_goes_with_its_labels(url: str, writers: Writers, make: Make) -> None:
    day = 86_400.0
    now = 1000 * day
    with EventStore.open(url) as store:
        store.write([make(f"p{age}", now - age * day) for age in (1, 29, 31, 400)])
        store.label([Label(f"p{age}", 0, "x", now) for age in (1, 31)])
        store.label([Label("never came", 0, "x", now - 40 * day), Label("may come", 0, "x", now)])
        writers(url, retention=30, clock=lambda: now).put(make("new", now))
        until(lambda: store.counts() == {"predictions": 3, "labels": 2, "early": 1})
        assert sorted(each.id for each in store.predictions()) == ["new", "p1", "p29"]
        assert store.history("p31") == []


def test_a_purge_that_breaks_takes_nothing_with_it(
    sqlite_url: str, writers: Writers, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def purge(*_: Any, **__: Any) -> dict[str, int]:
        raise RuntimeError("a driver")

    monkeypatch.setattr(EventStore, "purge", purge)
    writer = writers(sqlite_url, retention=30)
    for name in ("x", "y"):
        writer.put(make(name))
        assert writer.flush(20.0)
    assert ids(sqlite_url) == ["x", "y"]


def test_old_predictions_go_while_new_ones_keep_coming(sqlite_url: str, writers: Writers, make: Make) -> None:
    day = 86_400.0
    with EventStore.open(sqlite_url) as store:
        store.write([make(f"old{i}", 1.0) for i in range(3000)])
        writer = writers(sqlite_url, retention=30, interval=0.1, clock=lambda: 1000 * day)
        number = 0
        deadline = time.monotonic() + 20.0
        while next(store.predictions(until=2.0), None) is not None:
            assert time.monotonic() < deadline
            writer.put(make(f"new{number}", 999 * day))  # each look finds some to write
            number += 1
            time.sleep(0.001)
        assert writer.flush(10.0)
        assert store.counts()["predictions"] == writer.written == number


def test_a_purge_gives_the_disk_its_space_back(sqlite_url: str, tmp_path: Path, make: Make) -> None:
    outputs = np.random.default_rng(0).random((100, 100), np.float32)
    secret = b"the caller's own id"
    with EventStore.open(sqlite_url, timeout=0.2) as store:
        store.write([make(f"old{i}", 1.0, labels=["x"] * 100, outputs=outputs) for i in range(200)])
        store.write([make(secret.decode(), 2.0)])
        before = (tmp_path / "events.db").stat().st_size
        assert store.purge(before=1.5) == {"predictions": 200, "labels": 0}
        assert (tmp_path / "events.db").stat().st_size < before / 20
        store.purge(id=secret.decode())
        assert all(secret not in path.read_bytes() for path in tmp_path.iterdir())  # nor in the log


def test_a_clock_that_jumps_ahead_deletes_nothing(sqlite_url: str, writers: Writers, make: Make) -> None:
    day = 86_400.0
    time_now = [1000 * day]
    writer = writers(sqlite_url, retention=30, clock=lambda: time_now[0])
    time_now[0] += 3650 * day
    writer.put(make("x", 999 * day))
    assert writer.flush(10.0)
    time.sleep(0.1)  # several looks for what is too old
    assert ids(sqlite_url) == ["x"]


def test_a_clock_set_back_keeps_the_writer_going(sqlite_url: str, writers: Writers, make: Make) -> None:
    time_now = [1e9]
    writer = writers(sqlite_url, retention=30, clock=lambda: time_now[0])
    writer.put(make("a", 1e9))
    assert writer.flush(10.0)
    time_now[0] = 1e6
    writer.put(make("b", 1e6))
    assert writer.flush(10.0)
    assert ids(sqlite_url) == ["b", "a"]  # by their times; nothing is lost
