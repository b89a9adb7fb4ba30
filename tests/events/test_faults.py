"""Faults that need root to make: a read-only disk or file, a full disk; what was acknowledged is never lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from slimline.errors import EventError
from slimline.events import EventStore, EventWriter, Label
from tests.events.conftest import Make
from tests.events.postgres import Server

pytestmark = pytest.mark.e2e


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"mount {' '.join(arguments)}: {done.stderr}; this test needs root")


@pytest.fixture
def disk() -> Iterator[Path]:
    """A tmpfs of 4 MiB that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="slimline-disk-", dir="/tmp"))
    mount("-t", "tmpfs", "-o", "size=4m,mode=777", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
    folder.rmdir()


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def quick(url: str, **arguments: int) -> EventWriter:
    return EventWriter(url, interval=0.01, pause=0.02, longest_pause=0.1, timeout=1.0, **arguments)


def test_a_read_only_disk(disk: Path, make: Make) -> None:
    url = f"sqlite:///{disk}/events.db"
    with EventStore.open(url) as store:
        store.label([Label("before", 0, "x")])
    mount("-o", "remount,ro", str(disk))
    with pytest.raises(EventError) as caught, EventStore.open(url) as store:
        store.label([Label("lost", 0, "x")])
    assert caught.value.reason == "read-only"
    writer = quick(url, capacity=50)
    assert writer.put(make("first"))
    until(lambda: writer.fault is not None)
    results = [writer.put(make(f"p{i}")) for i in range(60)]
    assert writer.fault is not None
    assert writer.fault.reason == "read-only"
    assert writer.dropped == {"read-only": results.count(False)} == {"read-only": 11}
    mount("-o", "remount,rw", str(disk))
    assert writer.close(30.0)
    assert writer.written == 50
    with EventStore.open(url) as store:
        assert store.counts() == {"predictions": 50, "labels": 1, "early": 1}


def test_a_file_that_becomes_read_only() -> None:
    """In a process of its own, which gives up root: root may write everywhere."""
    folder = Path(tempfile.mkdtemp(prefix="slimline-file-", dir="/tmp"))
    code = """
import os, sys, time
import alembic.command, alembic.config, numpy
from slimline.events import EventStore, EventWriter, Label, Prediction, label_files
url, path = "sqlite:///" + sys.argv[1], sys.argv[1]
with EventStore.open(url) as store:
    store.label([Label("before", 0, "x")])
os.chmod(path, 0o644)
if os.getuid() == 0:
    os.chown(path, 65534, 65534)
    os.chown(os.path.dirname(path), 65534, 65534)
    os.setuid(65534)
os.chmod(path, 0o444)
writer = EventWriter(url, interval=0.01, pause=0.02, longest_pause=0.1, timeout=1.0)
for number in range(10):
    writer.put(Prediction(f"p{number}", 1.0, "r", "main", None, numpy.zeros((1, 2), "f4"), {}))
while writer.fault is None:
    time.sleep(0.01)
print(writer.fault.reason)
os.chmod(path, 0o644)
print(writer.close(30.0), writer.written, writer.dropped)
"""
    try:
        command = [sys.executable, "-c", code, str(folder / "events.db")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.stdout == "read-only\nTrue 10 {}\n", done.stderr
    finally:
        shutil.rmtree(folder)


def test_a_full_disk(disk: Path, make: Make) -> None:
    url = f"sqlite:///{disk}/events.db"
    writer = quick(url, capacity=20_000, batch=100)
    outputs = np.random.default_rng(0).random((10, 10), np.float32)
    labels = [str(i) for i in range(10)]
    acknowledged = []
    refused = None
    with EventStore.open(url) as store:
        for i in range(20_000):
            writer.put(make(f"p{i}", labels=labels, outputs=outputs))
            if i % 50 == 0 and refused is None:
                try:
                    store.label([Label(f"p{i}", 0, "x" * 100)])
                    acknowledged.append(f"p{i}")
                except EventError as error:
                    refused = error.reason
        until(lambda: writer.fault is not None)
        assert writer.fault is not None
        assert writer.fault.reason == "full"
        if refused is None:
            with pytest.raises(EventError, match="full"):
                store.label([Label(f"q{i}", 0, "x" * 8192) for i in range(100)])
    assert refused in {None, "full"}
    assert writer.written < 20_000
    before = writer.written
    mount("-o", "remount,size=64m", str(disk))
    assert writer.close(60.0)
    assert writer.written == 20_000 > before
    assert writer.dropped == {}
    with EventStore.open(url) as store:
        assert [store.history(id_)[0].label for id_ in acknowledged] == ["x" * 100] * len(acknowledged)
        assert sum(1 for _ in store.predictions()) == 20_000
        with store.database.begin("read") as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def test_a_full_disk_under_postgresql(server: Server, make: Make) -> None:
    """The database's own tablespace fills up; the server lives on elsewhere."""
    folder = Path(tempfile.mkdtemp(prefix="slimline-disk-", dir="/tmp"))
    mount("-t", "tmpfs", "-o", "size=12m,mode=777", "tmpfs", str(folder))
    try:
        (folder / "space").mkdir()
        shutil.chown(folder / "space", server.user)
        (folder / "space").chmod(0o700)
        url = server.database(tablespace=folder / "space")
        writer = quick(url, capacity=40_000, batch=500)
        outputs = np.random.default_rng(0).random((10, 10), np.float32)
        for i in range(20_000):
            writer.put(make(f"p{i}", labels=["x"] * 10, outputs=outputs))
        until(lambda: writer.fault is not None)
        assert writer.fault is not None
        assert writer.fault.reason == "full"
        mount("-o", "remount,size=96m", str(folder))
        assert writer.close(60.0)
        assert (writer.written, writer.dropped) == (20_000, {})
        server.stop("immediate")
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


def test_kill_9_while_writing_leaves_a_whole_store(tmp_path: Path) -> None:
    """What flush() said is written stays, and the file is sound."""
    url = f"sqlite:///{tmp_path}/events.db"
    code = """
import sys, numpy
from slimline.events import EventWriter, Prediction
writer = EventWriter(sys.argv[1], interval=0.001)
for number in range(1_000_000):
    writer.put(Prediction(f"p{number}", 1.0, "r", "main", None, numpy.zeros((1, 2), "f4"), {}))
    if number % 100 == 99:
        writer.flush()
        print(writer.written, flush=True)
"""
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(10):
                process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        with EventStore.open(url) as store, store.database.begin("read") as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
            assert store.counts()["predictions"] >= 1000
        (tmp_path / "events.db").unlink()
