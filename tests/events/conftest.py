"""Real stores, SQLite and PostgreSQL, and predictions to put there."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from slimline.events import EventStore, EventWriter, Prediction
from tests.events.postgres import Server, programs

Make = Callable[..., Prediction]
Writers = Callable[..., EventWriter]
# What a label needs, its writer must ask for. Only a power cut shows fsync; without it a crashed server starts at once.
SETTINGS = ("synchronous_commit=off", "fsync=off")
REVISION = "sha256:" + "a" * 64


@pytest.fixture(scope="session")
def _postgresql() -> Iterator[str]:
    """The URL of a database that all tests share, one after the other: to make and delete hundreds of files is slow."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL isn't installed: apt-get install postgresql")
    server = Server(found)
    server.start(*SETTINGS)
    yield server.database()
    server.remove()


@pytest.fixture
def server() -> Iterator[Server]:
    """A PostgreSQL server that a test may stop and break."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL isn't installed: apt-get install postgresql")
    own = Server(found)
    own.start(*SETTINGS)
    yield own
    own.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'events.db'}"
    shared: str = request.getfixturevalue("_postgresql")
    engine = sa.create_engine(shared)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return shared


@pytest.fixture
def store(url: str) -> Iterator[EventStore]:
    with EventStore.open(url) as opened:
        yield opened


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'events.db'}"


@pytest.fixture(scope="session")
def make() -> Make:
    """Return a prediction of one row and three outputs; keyword arguments replace what it says."""

    def prediction(id: str, time: float = 1000.0, **other: Any) -> Prediction:  # noqa: A002
        chosen: dict[str, Any] = {
            "revision": REVISION,
            "variant": "main",
            "labels": ["cat"],
            "outputs": np.array([[0.5, 0.25, 0.25]], np.float32),
            "latency": {"predict": 0.001, "total": 0.002},
        }
        return Prediction(id=id, time=time, **(chosen | other))

    return prediction


@pytest.fixture
def locked() -> Callable[[str], AbstractContextManager[None]]:
    """Return a context in which another process holds an SQLite file's write lock."""

    @contextmanager
    def hold(url: str) -> Iterator[None]:
        code = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
            "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()"
        )
        command = [sys.executable, "-c", code, url.removeprefix("sqlite:///")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield
            process.communicate("")

    return hold


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
