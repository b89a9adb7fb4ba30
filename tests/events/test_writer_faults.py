"""A store that is away, locked, gone or full: what the writer drops is counted, and it finds its way back."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from slimline.errors import EventError
from slimline.events import REASONS, EventStore, Label
from tests.events.conftest import Make, Writers, ids, until


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
