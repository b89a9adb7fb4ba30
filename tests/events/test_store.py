"""Predictions come back as they were written, in windows of time, from SQLite and PostgreSQL alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from slimline.errors import EventError
from slimline.events import EventStore, Label, schema
from tests.events.conftest import REVISION, Make


def test_a_prediction_comes_back_as_it_was(store: EventStore, make: Make) -> None:
    outputs = np.array([[0.1, 0.9], [np.float32(1e-30), -2.5]], np.float32)
    stages = {"teacher": outputs[1:], "prune": outputs[1:] * 2}
    inputs = {"image": np.arange(6, dtype=np.uint8).reshape(1, 2, 3)}
    written = make(
        "käse", 1234.5, labels=["a", "ß"], outputs=outputs, latency={"decode": 0.000123, "total": 1.5}, shadow=True,
        variant="canary", sampled=[1], stages=stages, inputs=inputs,
    )  # fmt: skip
    assert store.write([written]) == 1
    (read,) = store.find("käse")
    assert (read.id, read.time, read.revision, read.variant, read.shadow) == ("käse", 1234.5, REVISION, "canary", True)
    assert read.labels == ["a", "ß"]
    assert read.sampled == [1]
    assert read.latency == {"decode": 0.000123, "total": 1.5}
    np.testing.assert_array_equal(read.outputs, outputs)
    assert read.outputs.dtype == np.float32
    assert read.stages is not None
    assert read.inputs is not None
    np.testing.assert_array_equal(read.stages["prune"], stages["prune"])
    np.testing.assert_array_equal(read.inputs["image"], inputs["image"])
    assert read.inputs["image"].dtype == np.uint8


def test_a_batch_may_be_written_again(store: EventStore, make: Make) -> None:
    """After a commit whose answer was lost, the writer can't know; the second time changes nothing."""
    batch = [make(f"p{i}", float(i)) for i in range(150)]
    assert store.write(batch) == 150
    assert store.write([*batch, make("new")]) == 1
    assert store.counts()["predictions"] == 151


def test_one_id_is_one_prediction_for_each_revision_and_variant(store: EventStore, make: Make) -> None:
    """A mirrored request is answered twice under one id, and again by the next release."""
    answers = [make("x"), make("x", variant="next", shadow=True), make("x", revision="sha256:b"), make("x", 2000.0)]
    assert store.write(answers) == 3
    assert [(each.variant, each.revision, each.time) for each in store.find("x")] == [
        ("main", REVISION, 1000.0), ("next", REVISION, 1000.0), ("main", "sha256:b", 1000.0),
    ]  # fmt: skip


def test_a_window_is_read_in_order_of_time_and_page_by_page(store: EventStore, make: Make) -> None:
    times = np.random.default_rng(0).integers(0, 20, 100)  # many share a moment, so a page ends in the midst of one
    store.write([make(f"p{i}", float(time)) for i, time in enumerate(times)])
    found = list(store.predictions(since=5.0, until=15.0, page=7))
    assert sorted(each.id for each in found) == sorted(f"p{i}" for i, time in enumerate(times) if 5 <= time < 15)
    assert [each.time for each in found] == sorted(each.time for each in found)


def test_a_window_of_one_variant(store: EventStore, make: Make) -> None:
    store.write([make("a"), make("b", variant="canary"), make("c", variant="next", shadow=True)])
    assert [each.id for each in store.predictions(variant="canary")] == ["b"]
    assert [each.id for each in store.predictions(shadow=False)] == ["a", "b"]
    assert [each.id for each in store.predictions(revision="sha256:none")] == []


def test_what_was_sampled_is_found(store: EventStore, make: Make) -> None:
    outputs = np.ones((1, 3), np.float32)
    store.write([make("a"), make("b", sampled=[0], stages={"teacher": outputs}), make("c")])
    (found,) = store.predictions(sampled=True)
    assert found.id == "b"
    assert found.stages is not None
    assert list(found.stages) == ["teacher"]


def test_a_reader_sees_what_a_slow_consumer_left_open(store: EventStore, make: Make) -> None:
    """Pages are transactions of their own: a reader that dawdles doesn't keep writers' log from being emptied."""
    store.write([make(f"p{i}", float(i)) for i in range(10)])
    reader = store.predictions(page=5)
    next(reader)
    store.write([make("late", 99.0)])
    assert [each.id for each in reader][-1] == "late"


def test_one_hundred_rows_of_one_request(store: EventStore, make: Make) -> None:
    outputs = np.random.default_rng(0).random((100, 10), np.float32)
    store.write([make("x", labels=[str(i) for i in range(100)], outputs=outputs)])
    store.label([Label("x", 57, "b")])
    (row,) = store.labelled()
    np.testing.assert_array_equal(row.outputs, outputs[57])
    assert (row.index, row.answer, row.label) == (57, "57", "b")


def test_regression_has_no_answers(store: EventStore, make: Make) -> None:
    store.write([make("x", labels=None, outputs=np.array([2.5], np.float32))])
    store.label([Label("x", 0, 2.75)])
    (row,) = store.labelled()
    assert (row.answer, row.outputs.tolist(), row.label) == (None, [2.5], 2.75)


def test_the_tables_are_what_the_code_thinks(store: EventStore) -> None:
    with store.database.begin("read") as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.METADATA) == []


def test_the_newest_migration_is_known() -> None:
    config = Config()
    config.set_main_option("script_location", "slimline.events:migrations")
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_a_store_of_a_newer_version_is_refused(url: str) -> None:
    with EventStore.open(url) as store, store.database.begin("label") as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(EventError, match=r"schema 9999 is unknown here.*upgrade slimline") as caught:
        EventStore.open(url)
    assert caught.value.reason == "schema"


def test_processes_that_start_at_once_make_one_store(url: str) -> None:
    code = (
        "import sys; from slimline.events import EventStore; sys.stdin.read(); EventStore.open(sys.argv[1], timeout=60)"
    )
    command = [sys.executable, "-c", code, url]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]  # all have imported what they need before the first may go on
    errors = []
    for process in processes:
        assert process.stdin is not None
    for process in processes:
        process.stdin.close()  # type: ignore[union-attr]
    for process in processes:
        assert process.stderr is not None
        errors.append(process.stderr.read())
        process.stderr.close()
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0], errors
    with EventStore.open(url) as store:
        assert store.counts() == {"predictions": 0, "labels": 0, "early": 0}


def test_a_label_waits_for_the_disk(store: EventStore) -> None:
    """What makes an acknowledged label survive a power cut: SQLite's FULL (2), PostgreSQL's own fsync."""
    with store.database.begin("label") as connection:
        if store.database.is_sqlite:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        else:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    with store.database.begin("prediction") as connection:
        if store.database.is_sqlite:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
        else:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "off"


def test_writers_of_several_processes_count_in_one_order(store: EventStore, url: str, make: Make) -> None:
    """Who remembers the last sequence number he saw misses none: numbers appear in their own order."""
    with EventStore.open(url) as other:
        for turn in range(5):
            store.write([make(f"a{turn}")])
            other.write([make(f"b{turn}", revision=f"sha256:{turn}")])
    with store.database.begin("read") as connection:
        rows = connection.execute(sa.select(schema.PREDICTIONS.c.id).order_by(schema.PREDICTIONS.c.sequence)).scalars()
        assert list(rows) == [f"{who}{turn}" for turn in range(5) for who in "ab"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("events.db", "the URL can't be read"),
        ("mysql://x/y", "(can't be read|isn't supported)"),
        ("sqlite://", "in memory holds nothing for others"),
        ("sqlite:////nowhere/at/all/events.db", "unreachable: unable to open database file"),
        ("postgresql+psycopg://me:secret@localhost:1/x", "unreachable: .*refused"),
    ],
)
def test_a_url_that_leads_nowhere_is_one_line(url: str, message: str) -> None:
    with pytest.raises(EventError, match=message) as caught:
        EventStore.open(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_store_isnt_made_by_mistake(tmp_path: Path) -> None:
    with pytest.raises(EventError, match="there is none"):
        EventStore.open(f"sqlite:///{tmp_path / 'evnets.db'}", create=False)
    assert list(tmp_path.iterdir()) == []
