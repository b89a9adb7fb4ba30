"""The writer never blocks, loses nothing silently, and finds its way back when the store does."""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from slimline.errors import EventError
from slimline.events import REASONS, EventStore, EventWriter, Label
from tests.events.conftest import Make

Writers = Callable[..., EventWriter]


@pytest.fixture
def writers() -> Iterator[Writers]:
    """Return an EventWriter with short pauses; all are closed in the end."""
    made: list[EventWriter] = []

    def writer(url: str, **arguments: Any) -> EventWriter:
        chosen: dict[str, Any] = {"interval": 0.01, "pause": 0.02, "longest_pause": 0.1, "timeout": 0.3}
        made.append(EventWriter(url, **(chosen | arguments)))
        return made[-1]

    yield writer
    for each in made:
        each.close(1.0)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that another thread brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def ids(url: str) -> list[str]:
    with EventStore.open(url) as store:
        return [each.id for each in store.predictions()]


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


def test_the_runbook_names_every_reason() -> None:
    text = (Path(__file__).parents[2] / "docs/runbooks/SlimlineEventsDropped.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z-]+)`", text.partition("|---|---|")[2].partition("##")[0]))
    assert named == set(REASONS)


def test_a_store_that_is_away_fills_the_queue_then_drops_by_reason(
    tmp_path: Path, writers: Writers, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, int]] = []
    folder = tmp_path / "not-yet"
    with caplog.at_level(logging.WARNING):
        writer = writers(f"sqlite:///{folder}/events.db", capacity=100, on_drop=lambda *drop: told.append(drop))
        until(lambda: writer.put(make("first")) and writer.fault is not None)
        taken = writer.pending
        results = [writer.put(make(f"p{i}")) for i in range(150)]
        assert results == [True] * (100 - taken) + [False] * (50 + taken)
        assert writer.pending == 100
        assert writer.dropped == {"unreachable": 50 + taken}
        assert sum(count for _, count in told) == 50 + taken
        folder.mkdir()
        assert writer.flush(20.0)
    assert writer.written + writer.duplicates == 100
    assert writer.fault is None
    assert writer.put(make("after"))
    assert writer.flush(20.0)
    assert "after" in ids(f"sqlite:///{folder}/events.db")
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2, messages  # one when it went away and one when it came back, not one a try
    assert "unreachable" in messages[0]
    assert "writing again" in messages[1]


def test_put_neither_waits_nor_raises_while_the_store_is_locked(
    sqlite_url: str, writers: Writers, make: Make, locked: Callable[[str], AbstractContextManager[None]]
) -> None:
    writer = writers(sqlite_url)
    writer.put(make("before"))
    assert writer.flush(10.0)
    with locked(sqlite_url):
        worst = 0.0
        for i in range(100):
            started = time.perf_counter()
            assert writer.put(make(f"p{i}"))
            worst = max(worst, time.perf_counter() - started)
            time.sleep(0.002)
        until(lambda: writer.fault is not None)
        assert writer.fault is not None
        assert writer.fault.reason == "locked"
        assert writer.written == 1
        assert worst < 0.1  # the lock is waited for 0.3 s, but not here
    assert writer.flush(10.0)
    assert (writer.written, writer.dropped) == (101, {})


def test_a_label_is_not_acknowledged_while_the_store_is_locked(
    sqlite_url: str, locked: Callable[[str], AbstractContextManager[None]]
) -> None:
    with EventStore.open(sqlite_url, timeout=0.1) as store:
        with locked(sqlite_url), pytest.raises(EventError) as caught:
            store.label([Label("x", 0, "y")])
        assert caught.value.reason == "locked"
        assert store.counts()["labels"] == 0


def test_a_deleted_file_is_noticed(sqlite_url: str, tmp_path: Path, writers: Writers, make: Make) -> None:
    """SQLite would go on writing to a file that has no name any more."""
    writer = writers(sqlite_url)
    writer.put(make("before"))
    assert writer.flush(10.0)
    for path in tmp_path.glob("events.db*"):
        path.unlink()
    writer.put(make("after"))
    assert writer.flush(10.0)
    assert ids(sqlite_url) == ["after"]


def test_a_replaced_file_is_noticed(sqlite_url: str, tmp_path: Path, writers: Writers, make: Make) -> None:
    with EventStore.open(f"sqlite:///{tmp_path / 'other.db'}") as other:
        other.write([make("theirs", revision="sha256:other")])
    writer = writers(sqlite_url)
    writer.put(make("before"))
    assert writer.flush(10.0)
    for path in tmp_path.glob("events.db*"):
        path.unlink()
    shutil.move(tmp_path / "other.db", tmp_path / "events.db")
    writer.put(make("after"))
    assert writer.flush(10.0)
    assert sorted(ids(sqlite_url)) == ["after", "theirs"]


def test_postgresql_stopped_and_started_again(server: Any, writers: Writers, make: Make) -> None:
    url = server.database()
    writer = writers(url)
    for i in range(100):
        writer.put(make(f"a{i}"))
    assert writer.flush(10.0)
    server.stop()
    for i in range(100):
        writer.put(make(f"b{i}"))
    until(lambda: writer.fault is not None)
    assert writer.fault is not None
    assert writer.fault.reason == "unreachable"
    assert writer.pending == 100
    server.start()
    assert writer.flush(20.0)
    assert (writer.written, writer.dropped, writer.fault) == (200, {}, None)
    assert len(ids(url)) == 200


def test_a_postgresql_that_takes_no_writes(server: Any, writers: Writers, make: Make) -> None:
    """As after a failover to a standby."""
    url = server.database()
    EventStore.open(url).close()
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    name = sa.engine.make_url(url).database
    with engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        writer = writers(url)
        writer.put(make("x"))
        until(lambda: writer.fault is not None)
        assert writer.fault is not None
        assert writer.fault.reason == "read-only"
        connection.exec_driver_sql("SET default_transaction_read_only = off")
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
        assert writer.flush(20.0)
        # another session holds the table: the writer waits its while, then keeps what it has
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("LOCK TABLE predictions IN EXCLUSIVE MODE")
        writer.put(make("y"))
        until(lambda: writer.fault is not None)
        assert writer.fault is not None
        assert writer.fault.reason == "locked"
        connection.exec_driver_sql("ROLLBACK")
        assert writer.flush(20.0)
    engine.dispose()
    assert (writer.written, writer.dropped) == (2, {})


def test_what_no_store_can_take_doesnt_hold_up_the_rest(url: str, writers: Writers, make: Make) -> None:
    writer = writers(url, interval=0.2)
    bad = [
        make("nul\0"), make("\ud800"), make("x", outputs="no array"), make("y", time=float("nan")),
        make("z", latency={"total": "soon"}), make("w", labels=["a\0"]), make("v", revision=None),
        make("u", latency={"total": float("inf")}),
    ]  # fmt: skip
    for i in range(20):
        writer.put(make(f"good{i}"))
        if i < len(bad):
            writer.put(bad[i])
    assert writer.flush(20.0)
    assert (writer.written, writer.dropped) == (20, {"invalid": len(bad)})
    assert ids(url) == [f"good{i}" for i in range(20)]


def test_a_failing_hook_reaches_no_request(sqlite_url: str, writers: Writers, make: Make) -> None:
    def fail(reason: str, count: int) -> None:
        raise RuntimeError(reason)

    writer = writers(sqlite_url, capacity=0, on_drop=fail)
    assert writer.put(make("x")) is False
    assert writer.dropped == {"overflow": 1}


def test_what_is_left_at_close_is_counted(tmp_path: Path, writers: Writers, make: Make) -> None:
    writer = writers(f"sqlite:///{tmp_path}/nowhere/events.db")
    for i in range(7):
        writer.put(make(f"p{i}"))
    until(lambda: writer.fault is not None)
    assert not writer.close(0.1)
    assert writer.dropped == {"unreachable": 7}
    assert writer.pending == 0


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


def test_outputs_of_ten_thousand_rows(sqlite_url: str, writers: Writers, make: Make) -> None:
    writer = writers(sqlite_url)
    outputs = np.random.default_rng(0).random((10_000, 10), np.float32)
    writer.put(make("x", labels=["a"] * 10_000, outputs=outputs))
    assert writer.flush(10.0)
    with EventStore.open(sqlite_url) as store:
        np.testing.assert_array_equal(store.find("x")[0].outputs, outputs)
