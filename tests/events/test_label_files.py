"""Nightly labels from a file: all of it or a mistake with file and row, and never twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from slimline import cli
from slimline.errors import EventError, SlimlineError
from slimline.events import EventStore, Outcome, label_files
from tests.events.conftest import Make


@pytest.fixture
def run(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the command line on the test's store and return what it printed; raise what it raised."""
    monkeypatch.setenv("SLIMLINE_EVENT_STORE", sqlite_url)

    def invoke(*arguments: str) -> str:
        result = CliRunner().invoke(cli.app, arguments)
        if isinstance(result.exception, SlimlineError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return invoke


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix in {".csv", ".tsv"}:
        mark = "," if path.suffix == ".csv" else "\t"
        lines = [mark.join(rows[0]), *(mark.join(str(value) for value in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv", "labels.jsonl", "labels.parquet"])
def test_every_format_says_the_same(name: str, tmp_path: Path, store: EventStore, make: Make) -> None:
    store.write([make("a", labels=["x", "y"], outputs=[[0.0], [1.0]]), make("b")])
    rows = [{"id": "a", "index": 1, "label": "dog"}, {"id": "b", "index": 0, "label": "cat"}]
    rows += [{"id": "unknown", "index": 0, "label": "Ünï ☃"}]
    path = write(tmp_path / name, rows)
    told: list[tuple[int, int]] = []
    counts = label_files.load(store, path, progress=lambda *done: told.append(done))
    assert counts[Outcome.NEW] == 2
    assert counts[Outcome.EARLY] == 1
    assert told[-1] == (3, 3)
    assert [(row.id, row.index, row.label) for row in store.labelled()] == [("a", 1, "dog"), ("b", 0, "cat")]
    assert label_files.load(store, path)[Outcome.DUPLICATE] == 3


def test_the_command_says_what_became_of_each(
    run: Callable[..., str], sqlite_url: str, tmp_path: Path, make: Make
) -> None:
    with EventStore.open(sqlite_url) as store:
        store.write([make("a"), make("b")])
    assert run("labels", "import", str(write(tmp_path / "1.csv", [{"id": "a", "label": "x"}]))) == "1 labels: 1 new\n"
    rows = [{"id": "a", "label": "y"}, {"id": "a", "label": "y"}, {"id": "c", "label": "z"}]
    out = run("labels", "import", str(write(tmp_path / "2.csv", rows)))
    assert out == "3 labels: 1 corrected, 1 duplicate, 1 early\n"
    shown = run("events", "show")
    assert shown.startswith("2 predictions, 2 labels, 1 of them early\n  main sha256:aaa")
    assert "2 from 1970-01-01T00:16:40+00:00 to 1970-01-01T00:16:40+00:00" in shown


def test_many_batches(tmp_path: Path, store: EventStore) -> None:
    path = write(tmp_path / "labels.csv", [{"id": f"p{i}", "label": i % 3} for i in range(2500)])
    told: list[tuple[int, int]] = []
    assert label_files.load(store, path, progress=lambda *done: told.append(done))[Outcome.EARLY] == 2500
    assert told == [(1000, 2500), (2000, 2500), (2500, 2500)]
    assert store.history("p4")[0].label == "1"  # what CSV holds is text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "id,lable\na,b\n", r"x\.csv: column 'lable' is unknown\. Did you mean 'label'\?"),
        ("x.csv", "id\na\n", r"x\.csv: column 'label' is missing"),
        ("x.csv", "", r"x\.csv: line 1: empty; a header with column names is expected"),
        ("x.csv", "id,label\na,b\nc\n", r"x\.csv: line 3: 1 values, the header has 2"),
        ("x.csv", "id,label\na,b\nc,\n", r"x\.csv: line 3: label: is empty"),
        ("x.csv", "id,label\n,b\n", r"x\.csv: line 2: id: expected text"),
        ("x.csv", "id,index,label\na,-1,b\n", r"x\.csv: line 2: index: expected a whole number, found '-1'"),
        ("x.csv", "id,index,label\na,99999999999,b\n", r"x\.csv: line 2: .*index: expected a whole number"),
        ("x.csv", 'id,label\na,"b\n', r"x\.csv: line \d: .*unexpected end"),
        ("x.csv", "id,label\na,\udcff\n", r"x\.csv: line 2: not UTF-8 \(.*iconv -f"),
        ("x.jsonl", '{"id": "a", "label": "b"}\n{"id"\n', r"x\.jsonl: line 2: not JSON: "),
        ("x.jsonl", "[1]\n", r"x\.jsonl: line 1: a JSON object is expected, found list"),
        ("x.jsonl", '{"id": "a", "label": null}\n', r"x\.jsonl: line 1: label: is empty"),
        ("x.jsonl", '{"id": "a", "label": NaN}\n', r"x\.jsonl: line 1: .*not JSON compliant"),
        ("x.jsonl", '{"id": "a", "label": true}\n', r"x\.jsonl: line 1: label: expected text, a number or a list"),
        ("x.parquet", "PAR1 nonsense", r"x\.parquet: not a Parquet file that can be read: "),
        ("x.txt", "", r"x\.txt: the ending '\.txt' is unknown"),
    ],
)
def test_a_mistake_names_file_and_row_and_changes_nothing(
    name: str, text: str, message: str, tmp_path: Path, store: EventStore
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(EventError, match=message) as caught:
        label_files.load(store, path)
    assert "\n" not in str(caught.value)
    assert store.counts()["labels"] == 0


def test_a_row_that_isnt_there(tmp_path: Path, store: EventStore, make: Make) -> None:
    store.write([make("a"), make("b")])
    rows = [{"id": "a", "index": 0, "label": "x"}, {"id": "b", "index": 7, "label": "x"}]
    with pytest.raises(EventError, match=r"labels\.csv: line 3: index: prediction 'b' has no row 7 \(the first of 1"):
        label_files.load(store, write(tmp_path / "labels.csv", rows))
    assert store.counts()["labels"] == 1


@pytest.mark.parametrize(
    ("kind", "given", "stored"),
    [
        ("text", 3, "3"), ("auto", 3, 3), ("auto", 2.5, 2.5), ("auto", ["a", 1], ["a", 1]), ("number", "2.50", 2.5),
        ("number", 3, 3.0), ("json", '["a"]', ["a"]), ("json", "2", 2),
    ],
)  # fmt: skip
def test_what_a_label_is(kind: str, given: Any, stored: Any, tmp_path: Path, store: EventStore) -> None:
    path = write(tmp_path / "labels.jsonl", [{"id": "a", "label": given}])
    label_files.load(store, path, kind)
    (label,) = store.history("a")
    assert (label.label, type(label.label)) == (stored, type(stored))


@pytest.mark.parametrize(("kind", "given"), [("text", 2.5), ("number", "x"), ("number", ["1"]), ("json", "{")])
def test_what_a_label_isnt(kind: str, given: Any, tmp_path: Path, store: EventStore) -> None:
    path = write(tmp_path / "labels.jsonl", [{"id": "a", "label": given}])
    with pytest.raises(EventError, match=r"labels\.jsonl: line 1: label: "):
        label_files.load(store, path, kind)


@pytest.mark.parametrize("first", ["", "sep=;\r\n"])
@pytest.mark.parametrize(("kind", "stored"), [("auto", "3,5"), ("number", 3.5)])
def test_a_table_as_german_excel_writes_it(
    tmp_path: Path, store: EventStore, kind: str, stored: Any, first: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(f"\ufeff{first}id;label\r\na;3,5\r\n".encode())
    label_files.load(store, path, kind)
    assert store.history("a")[0].label == stored


@pytest.mark.parametrize(("name", "row"), [("x.tsv", "a\t3,5"), ("x.csv", 'a,"3,5"')])
def test_decimal_commas_are_those_that_tasks_read(tmp_path: Path, store: EventStore, name: str, row: str) -> None:
    mark = "\t" if name == "x.tsv" else ","
    (tmp_path / name).write_text(f"id{mark}label\n{row}\n")
    label_files.load(store, tmp_path / name, "number")
    assert store.history("a")[0].label == 3.5
    (tmp_path / name).write_text(f"id{mark}label\n{row.replace('3,5', '1,200')}\n")
    with pytest.raises(EventError, match=r"line 2: label: expected a number, found '1,200'"):
        label_files.load(store, tmp_path / name, "number")


def test_a_point_that_may_stand_between_thousands_is_asked_about(tmp_path: Path, store: EventStore) -> None:
    (tmp_path / "x.csv").write_text("id;label\na;1.234\nb;3,5\n")
    with pytest.raises(
        EventError, match=r"x\.csv: line 2: label: '1\.234' may be 1234 .* since .*x\.csv: line 3 has '3,5'"
    ):
        label_files.load(store, tmp_path / "x.csv", "number")
    assert store.counts()["labels"] == 0
    (tmp_path / "x.csv").write_text("id;label\na;1.234,5\n")
    label_files.load(store, tmp_path / "x.csv", "number")
    assert store.history("a")[0].label == 1234.5


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson"])
def test_a_night_without_labels(tmp_path: Path, store: EventStore, name: str) -> None:
    (tmp_path / name).write_text("\n")
    assert sum(label_files.load(store, tmp_path / name).values()) == 0


def test_ids_that_are_numbers(tmp_path: Path, store: EventStore) -> None:
    label_files.load(store, write(tmp_path / "labels.parquet", [{"id": 17, "label": 3}]), "text")
    assert store.history("17")[0].label == "3"


def test_a_locked_store_says_how_far_it_came(
    tmp_path: Path, sqlite_url: str, locked: Callable[[str], AbstractContextManager[None]]
) -> None:
    path = write(tmp_path / "labels.csv", [{"id": "a", "label": "x"}])
    with EventStore.open(sqlite_url, timeout=0.1) as store:
        with locked(sqlite_url), pytest.raises(EventError, match=r"0 of 1 labels are written.*locked") as caught:
            label_files.load(store, path)
        assert caught.value.reason == "locked"


def test_purge_by_date_and_by_id(run: Callable[..., str], sqlite_url: str, make: Make) -> None:
    day = 86_400.0
    with EventStore.open(sqlite_url) as store:
        store.write([make(f"p{number}", number * day) for number in range(5)])
    assert run("events", "purge", "--before", "1970-01-03") == "deleted 2 predictions and 0 labels\n"
    assert run("events", "purge", "--before", "1970-01-03T01:00+02:00") == "deleted 0 predictions and 0 labels\n"
    assert run("events", "purge", "--before", "1970-01-03T01:00-02:00") == "deleted 1 predictions and 0 labels\n"
    assert run("events", "purge", "--id", "p4") == "deleted 1 predictions and 0 labels\n"
    with EventStore.open(sqlite_url) as store:
        assert [each.id for each in store.predictions()] == ["p3"]


def test_purge_by_age(run: Callable[..., str], sqlite_url: str, make: Make) -> None:
    """As blame and window take times."""
    with EventStore.open(sqlite_url) as store:
        store.write([make(f"p{hours}", time.time() - hours * 3600) for hours in (1, 23, 25, 49)])
    assert run("events", "purge", "--before", "24h") == "deleted 2 predictions and 0 labels\n"
    assert run("events", "purge", "--before", "1d") == "deleted 0 predictions and 0 labels\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["events", "purge"], "give either"),
        (["events", "purge", "--id", "a", "--before", "2020-01-01"], "give either"),
        (["events", "purge", "--before", "last week"], "--before: 'last week' is no time"),
        (["labels", "import", "nowhere.csv"], r"nowhere\.csv: no such file"),
        (["labels", "import", "nowhere.csv", "--as", "txt"], r"Did you mean 'text'\?"),
        (["events", "show", "--store", "sqlite:///nowhere.db"], "there is none"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str], message: str, run: Callable[..., str], sqlite_url: str
) -> None:
    EventStore.open(sqlite_url).close()
    with pytest.raises(EventError, match=message):
        run(*arguments)
