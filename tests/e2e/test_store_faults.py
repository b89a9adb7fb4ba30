"""The event store fails under a server and its clients: answers go on, labels are refused, nothing told is lost."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tests.e2e.servers import SERVE, Process
from tests.e2e.witness import Witness
from tests.endpoint.conftest import until
from tests.events.postgres import Server, programs

Run = Callable[..., Process]


def dropped(server: Process) -> float:
    lines = [line for line in server.metrics().splitlines() if line.startswith("slimline_events_dropped_total{")]
    return sum(float(line.split()[-1]) for line in lines)


def went_away(witness: Witness, seconds: float = 30.0) -> None:
    """Wait until a label was refused, and let predictions go on for a while after it."""
    until(lambda: 503 in witness.labelled(), seconds)
    asked = len(witness.answered)
    until(lambda: len(witness.answered) > asked + 50, seconds)


def came_back(witness: Witness) -> None:
    acknowledged = len(witness.acknowledged)
    until(lambda: len(witness.acknowledged) > acknowledged + 5, 30)


def told(witness: Witness, reason: str) -> None:
    """Hold what the clients saw to what is promised: no prediction failed; a label was kept, or refused in one line."""
    assert witness.predicted() == {200}
    assert witness.labelled() == {200, 503}
    for status, retry, error in witness.refusals:
        assert (status, retry) == (503, "1")
        assert error.startswith("the event store is away, nothing was kept: ")
        assert reason in error
        assert "\n" not in error


def test_a_locked_store(run: Run, document: dict[str, Any], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    running = run(SERVE)
    with Witness(running.url, document) as witness:
        until(lambda: len(witness.acknowledged) > 5)
        other = sqlite3.connect(tmp_path / "events.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        went_away(witness)
        started = time.monotonic()
        assert "slimline_ready" in running.metrics()
        assert time.monotonic() - started < 2, "who has nothing to do with labels doesn't wait for the lock"
        other.execute("ROLLBACK")
        other.close()
        came_back(witness)
    told(witness, "locked")
    assert dropped(running) == 0
    running.stop()
    assert witness.lost(url) == []


@pytest.fixture
def disk(small_disk: Path) -> Iterator[Path]:
    """A disk of 4 MiB, writable again in the end."""
    yield small_disk
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)


def test_a_store_on_a_read_only_disk(run: Run, document: dict[str, Any], disk: Path) -> None:
    url = f"sqlite:///{disk}/events.db"
    first = run(SERVE, event_store=url)
    assert httpx.post(f"{first.url}/feedback", json={"id": "before", "label": "1"}).status_code == 200
    first.stop()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    running = run(SERVE, event_store=url)
    with Witness(running.url, document) as witness:
        went_away(witness)
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        came_back(witness)
    told(witness, "read-only")
    assert dropped(running) == 0
    running.stop()
    witness.acknowledged["before"] = "1"
    assert witness.lost(url) == []


def test_a_store_on_a_full_disk(run: Run, document: dict[str, Any], disk: Path) -> None:
    url = f"sqlite:///{disk}/events.db"
    running = run(SERVE, event_store=url)
    ballast = disk / "ballast"
    with Witness(running.url, document) as witness:
        until(lambda: len(witness.acknowledged) > 5)
        while 503 not in witness.labelled():  # a log that shrinks gives room again
            with suppress(OSError), ballast.open("ab") as file:
                file.write(bytes(shutil.disk_usage(disk).free))
            time.sleep(0.05)
        went_away(witness)
        ballast.unlink()
        came_back(witness)
    told(witness, "full")
    assert dropped(running) == 0
    running.stop()
    assert witness.lost(url) == []


@pytest.fixture
def postgresql() -> Iterator[Server]:
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL isn't installed: apt-get install postgresql")
    own = Server(found)
    own.start("synchronous_commit=off")
    yield own
    own.remove()


def test_postgresql_stopped_and_crashed(run: Run, document: dict[str, Any], postgresql: Server) -> None:
    """After a crash of the database predictions of the last moment may be missing; no acknowledged label is."""
    url = postgresql.database()
    running = run(SERVE, event_store=url)
    crashed = 0.0
    with Witness(running.url, document) as witness:
        until(lambda: len(witness.acknowledged) > 5)
        for mode in ("fast", "immediate"):
            witness.statuses.pop(("/feedback", 503), None)
            crashed = time.monotonic()
            postgresql.stop(mode)
            went_away(witness)
            postgresql.start("synchronous_commit=off")
            came_back(witness)
    told(witness, "unreachable")
    assert dropped(running) == 0
    running.stop()
    for name in witness.lost(url):
        assert crashed - 1.5 < witness.answered[name] < crashed + 0.5


def test_a_postgresql_that_becomes_read_only(run: Run, document: dict[str, Any], postgresql: Server) -> None:
    """As after a failover to a standby, for the sessions that are open too."""
    url = postgresql.database()
    running = run(SERVE, event_store=url)
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")

    def say(read_only: str) -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"ALTER SYSTEM SET default_transaction_read_only = {read_only}")
            connection.exec_driver_sql("SELECT pg_reload_conf()")

    with Witness(running.url, document) as witness:
        until(lambda: len(witness.acknowledged) > 5)
        say("on")
        went_away(witness)
        say("off")
        came_back(witness)
    engine.dispose()
    told(witness, "read-only")
    assert dropped(running) == 0
    running.stop()
    assert witness.lost(url) == []


def test_a_store_that_stays_away_is_counted_to_the_last_prediction(
    run: Run, document: dict[str, Any], tmp_path: Path
) -> None:
    running = run(SERVE, event_store=f"sqlite:///{tmp_path}/missing/folder/events.db")
    with Witness(running.url, document) as witness:
        went_away(witness)
    assert witness.predicted() == {200}
    assert witness.labelled() == {503}
    running.stop()
    (said,) = [line for line in running.log.read_text().splitlines() if "events were lost at the end" in line]
    assert f"{{'unreachable': {len(witness.answered)}}}" in said
