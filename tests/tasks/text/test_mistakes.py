"""Wrong rows are told by file and row, all of them in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slimline.errors import DataError
from slimline.own_data import labelled_rows
from slimline.project import own_data
from slimline.tasks.text import text
from tests.encoders import LABELS, texts, write_table
from tests.tasks.text.conftest import WRITERS, make

pytest.importorskip("tokenizers")


def test_a_label_of_other_splits_alone_is_told_by_its_row(folder: Path) -> None:
    rows = [(text, label, "test" if at % 5 == 0 else "train") for at, (text, label) in enumerate(texts(60))]
    rows[10] = (rows[10][0], "sprot", "test")
    write_table(folder / "t.csv", rows, ("text", "label", "split"))
    asked = {"data": str(folder / "t.csv"), "split": "split", "labels": [*LABELS, "sprot"]}
    message = (
        r"t\.csv: row 11: label 'sprot' has no training row \(1 such in task.args.labels\)\. Did you mean 'sport'\?"
    )
    with pytest.raises(DataError, match=message):
        text(tokenizer=str(folder / "model"), **asked).splits()


WRONG: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "no such column": (
        lambda f: write_table(f / "t.csv", texts(30)), {"label": "lable"},
        r"t.csv: no column 'lable'. Did you mean 'label'\? It has: text, label",
    ),
    "unknown label in test": (
        lambda f: {"train": str(write_table(f / "a.csv", texts(60))),
                   "test": str(write_table(f / "b.csv", [*texts(9, 1), ("goal", "sprot")]))}, {},
        r"b.csv: row 10: unknown label 'sprot'. Did you mean 'sport'\?",
    ),
    "empty text": (
        lambda f: write_table(f / "t.csv", [*texts(30), (" ", "sport")]), {}, r"t.csv: row 31: column 'text': "),
    "no label": (lambda f: write_table(f / "t.csv", [*texts(30), ("goal", "")]), {}, r"t.csv: row 31: .*no label"),
    "empty class": (
        lambda f: write_table(f / "t.csv", texts(30)), {"labels": [*LABELS, "art"]},
        r"t.csv: label 'art' has no training row",
    ),
    "undecodable bytes": (
        lambda f: (f / "t.csv").write_bytes(b"text,label\ngoal,sport\n\xff\xfe,sport\n") and f / "t.csv", {},
        r"t.csv: line 3: not UTF-8",
    ),
    "a row too short": (
        lambda f: (f / "t.csv").write_bytes(b"text,label\ngoal,sport\nbank\n") and f / "t.csv", {},
        r"t.csv: line 3: 1 values, the header has 2",
    ),
    "no JSON": (lambda f: (f / "t.jsonl").write_text('{"text": "a", "label": "sport"}\n{') and f / "t.jsonl", {},
                r"t.jsonl: line 2: not JSON"),
    "a split that is none": (
        lambda f: write_table(f / "t.csv", [(*row, "trian") for row in texts(30)], ("text", "label", "part")),
        {"split": "part"}, r"t.csv: row 1: column 'part': 'trian' is no split",
    ),
    "no file": (lambda f: f / "missing.csv", {}, r"missing.csv: no such file"),
    "no rows": (lambda f: write_table(f / "t.csv", []), {}, r"t.csv: no row"),
    "one text": (
        lambda f: write_table(f / "t.csv", [("the goal", LABELS[at % 3]) for at in range(200)]), {},
        r"t.csv: too few rows: none is left for \S+ \(200 in all, with 1 distinct inputs or groups, which stay tog",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_is_told_by_file_and_row(folder: Path, case: str) -> None:
    write, args, message = WRONG[case]
    data = write(folder)
    with pytest.raises(DataError, match=message) as caught:
        make(data if isinstance(data, dict) else str(data), **args).splits()
    assert "\n" not in str(caught.value)


def test_labels_may_be_numbers_in_params_yaml(folder: Path) -> None:
    assert make("t.csv", labels=[1, 2.5, "three"]).labels == ("1", "2.5", "three")


@pytest.mark.parametrize("cell", ['["sport", "money"', "['sport', 'money'", "[sport"])
def test_a_broken_list_of_labels_is_told_by_its_row(folder: Path, cell: str) -> None:
    data = write_table(folder / "t.csv", [*texts(30), ("goal", cell)])
    with pytest.raises(DataError, match=r"t\.csv: row 31: .* is no list of labels; \[\"one\", \"two\"\] is one$"):
        make(str(data), answer="many").splits()


def write_bytes(path: Path, rows: list[tuple[bytes, bytes]]) -> Path:
    """Write texts and labels as they are, in the format of the suffix."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        names = ("text", "label")
        columns = [pa.array(values, pa.binary()).view(pa.string()) for values in zip(*rows, strict=True)]
        parquet.write_table(pa.table(dict(zip(names, columns, strict=True))), path)
    elif path.suffix == ".jsonl":
        path.write_bytes(b"".join(b'{"text": "%s", "label": "%s"}\n' % row for row in rows))
    else:
        mark = b"\t" if path.suffix == ".tsv" else b","
        path.write_bytes(b"".join(mark.join(row) + b"\n" for row in [(b"text", b"label"), *rows]))
    return path


@pytest.mark.parametrize("suffix", WRITERS)
def test_mistakes_are_told_alike_in_every_format(folder: Path, suffix: str) -> None:
    good = texts(60)
    train = WRITERS[suffix](folder / f"train{suffix}", good)
    wrong = WRITERS[suffix](folder / f"wrong{suffix}", [*texts(9, 1), ("goal", "sprot")])
    broken = [(a.encode(), b.encode()) for a, b in good]
    broken[41] = (b"caf\xe9 goal", b"sport")
    place = {".jsonl": "line 42", ".parquet": "row 42: column 'text'"}.get(suffix, "line 43")
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (str(train), {"label": "lable"}, rf"train{suffix}: no column 'lable'"),
        ({"train": str(train), "test": str(wrong)}, {}, rf"wrong{suffix}: row 10: unknown label 'sprot'"),
        (str(train), {"labels": [*LABELS, "art"]}, rf"train{suffix}: label 'art' has no training row"),
        (str(write_bytes(folder / f"broken{suffix}", broken)), {}, rf"broken{suffix}: {place}: not UTF-8"),
    ]
    for data, args, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            make(data, **args).splits()
        assert "\n" not in str(caught.value)


def spoilt(changes: dict[int, tuple[str, str]]) -> list[tuple[str, str]]:
    return [changes.get(at, row) for at, row in enumerate(texts(60), 1)]


SPOILT: dict[str, tuple[dict[int, tuple[str, str]], str]] = {
    "two": (dict.fromkeys([3, 17], ("", "sport")), "rows 3 and 17: column 'text': empty; fill it in"),
    "many": (dict.fromkeys([3, 17, 40, 41, 42], (" ", "sport")), "rows 3, 17, 40 and 2 more: column 'text': empty"),
    "labels": (dict.fromkeys([4, 9], ("goal", "sprot")), "rows 4 and 9: unknown label 'sprot'. Did you mean 'sport'?"),
    "two kinds": (
        {3: ("", "sport"), 5: ("goal", ""), 8: ("goal", "art")},
        "row 3: column 'text': empty; fill it in, or take the row out (2 other mistakes, such as t.csv: row 5: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_all_wrong_rows_are_told_in_one_line(folder: Path, case: str) -> None:
    changes, message = SPOILT[case]
    write_table(folder / "t.csv", spoilt(changes))
    with pytest.raises(DataError, match=f"^t.csv: {re.escape(message)}") as caught:
        make("t.csv").splits()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([7], "row 7 (and 2 in other files)"),
        ([7, 9, 11], "rows 7, 9 and 11 (and 2 in other files)"),
        ([7, 9, 11, 12, 20], "rows 7, 9, 11 and 2 more (and 2 in other files)"),
    ],
)
def test_wrong_rows_of_other_files_are_counted(folder: Path, rows: list[int], said: str) -> None:
    write_table(folder / "train.csv", spoilt(dict.fromkeys(rows, ("goal", ""))))
    write_table(folder / "test.csv", spoilt(dict.fromkeys([1, 2], ("goal", ""))))
    with pytest.raises(DataError, match=rf"^train\.csv: {re.escape(said)}: no label"):
        make({"train": "train.csv", "test": "test.csv"}).splits()
    with pytest.raises(DataError, match=rf"train\.csv: {re.escape(said)}: column 'label': empty"):
        own_data.describe(folder)


@pytest.mark.parametrize("suffix", WRITERS)
def test_wrong_rows_are_told_where_reading_breaks_behind_them(folder: Path, suffix: str) -> None:
    """They were dropped, and told one by one once the file could be read."""
    rows = [(a.encode(), b.encode()) for a, b in texts(1500)]
    rows[9] = rows[1100] = (b"goal", b"sprot")
    rows[1299] = (b"caf\xe9 goal", b"sport")
    write_bytes(folder / f"t{suffix}", rows)
    place = {".jsonl": "line 1300", ".parquet": "row 1300: column 'text'"}.get(suffix, "line 1301")
    message = rf"^t{suffix}: rows 10 and 1101: unknown label 'sprot'\..*; then t{suffix}: {place}: not UTF-8"
    with pytest.raises(DataError, match=message) as caught:
        make(f"t{suffix}").splits()
    assert "\n" not in str(caught.value)


def test_wrong_rows_are_told_before_a_split_that_is_none(folder: Path) -> None:
    rows = [(*row, "train") for row in spoilt({7: ("", "sport"), 50: ("", "sport")})]
    rows[39] = (*rows[39][:2], "trian")
    write_table(folder / "t.csv", rows, ("text", "label", "part"))
    message = r"^t\.csv: row 7: column 'text': empty; .*; then t\.csv: row 40: column 'part': 'trian' is no split"
    with pytest.raises(DataError, match=message):
        make("t.csv", split="part").splits()


def test_reading_stops_where_hardly_a_row_is_right(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_rows, "MOST", 10)
    write_table(folder / "t.csv", [(each, "art") for each, _ in texts(60)])
    with pytest.raises(DataError, match=r"^t\.csv: rows 1, 2, 3 and 7 more: .*; 10 mistakes, where reading stopped$"):
        make("t.csv").splits()
