"""What no project can be made of is told in one line, by file and row."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from slimline.errors import DataError, ParamsError, SlimlineError
from tests.encoders import texts, write_table
from tests.own_kinds.conftest import ROWS, checked, labelled_images, laid_out
from tests.pictures import write_zip

pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": ("path",)}, "--text: images don't take it"),
        ({"max_length": 16}, "--max-length: images don't take it"),
        ({"label": "x"}, "--label: p has no columns: the folders' names say the classes"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    labelled_images()
    with pytest.raises(ParamsError, match=message):
        laid_out("resnet", "p", **options)


WRONG: dict[str, tuple[list[Any], str]] = {
    "no label": ([*ROWS[:5], ("a goal", ""), *ROWS[5:]], r"t\.csv: row 6: column 'label': empty; fill it in"),
    "one label": (
        [(text, "sport") for text, _ in ROWS],
        r"t\.csv: column 'label': no label but 'sport' in 120 rows; two",
    ),
    "no row": ([], r"t\.csv: no row in it"),
    "no text": ([*ROWS[:5], (" ", "sport"), *ROWS[5:]], r"t\.csv: row 6: column 'text': empty; fill it in"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_rows_are_told_by_file_and_row(encoder: Path, case: str) -> None:
    rows, message = WRONG[case]
    write_table(Path("t.csv"), rows)
    with pytest.raises(DataError, match=message) as caught:
        checked(laid_out(str(encoder), "t.csv"))
    assert "\n" not in str(caught.value)


def test_a_label_of_the_test_file_alone_is_told_by_its_row(encoder: Path) -> None:
    Path("d").mkdir()
    write_table(Path("d/train.csv"), ROWS)
    write_table(Path("d/test.csv"), [*texts(30, 1), ("a goal", "sprot")])
    message = r"d/test\.csv: row 31: column 'label': unknown label 'sprot', which no row of d/train\.csv has\. Did you"
    with pytest.raises(DataError, match=message):
        laid_out(str(encoder), "d")
    write_table(Path("d/test.csv"), [("a goal", "sprot"), *texts(30, 1), ("a goal", "sprot"), ("a goal", "art")])
    message = r"d/test\.csv: rows 1 and 32: column 'label': unknown label 'sprot' \(and 1 more likewise\), which no row"
    with pytest.raises(DataError, match=message):
        laid_out(str(encoder), "d")


HEADERS: dict[str, tuple[bytes, str]] = {
    "twice": (b"text,label,label\na,b,c\n", "line 1: column 'label' stands there twice"),
    "bars": (b"text|label\na|b\n", r"line 1: one column, 'text\|label': '\|' separates no columns in \.csv"),
    "not UTF-8": (
        "Größe,label\na,b\n".encode("latin-1"),
        r"line 1: not UTF-8 \(.*iconv -f WINDOWS-1252 -t UTF-8 t\.csv > t\.utf8",
    ),
    "none": (b'"a goal\nof the team",sport\n"a bank",money\n', "which column is the label.* a goal of the team, sport"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_wrong_header_is_told_in_one_line(encoder: Path, case: str) -> None:
    content, message = HEADERS[case]
    Path("t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        laid_out(str(encoder), "t.csv")
    assert "\n" not in str(caught.value)


def test_a_folder_of_tables_without_one_to_train_on_is_told(encoder: Path) -> None:
    """It was said to hold no image."""
    Path("d").mkdir()
    write_table(Path("d/test.csv"), ROWS)
    with pytest.raises(DataError, match=r"^--data: d: a folder with train\.csv \(or \.tsv, \.jsonl, \.parquet\) is"):
        laid_out(str(encoder), "d")
    with pytest.raises(DataError, match=r"^d: no image in it"):
        laid_out("resnet", "d")


def test_an_empty_class_folder_is_told() -> None:
    labelled_images()
    Path("p/black").mkdir()
    Path("p/.cache").mkdir()
    with pytest.raises(DataError, match="p/black: a class folder without an image in it"):
        laid_out("resnet", "p")


def test_a_single_class_folder_is_told() -> None:
    labelled_images()
    with pytest.raises(DataError, match=r"p/red: \S+ lies in no class folder; put it into one"):
        laid_out("resnet", "p/red")
    for label in ("green", "blue"):
        shutil.rmtree(f"p/{label}")
    with pytest.raises(DataError, match="p: one class alone, 'red'"):
        laid_out("resnet", "p")


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_listed_image_that_is_not_there_is_told_by_its_row(*, packed: bool) -> None:
    rows = [row[:2] for row in labelled_images()]
    write_table(Path("list.csv"), [*rows, ("p/red/none.png", "red")], ("path", "label"))
    if packed:
        write_zip(Path("p"), Path("all.zip"))
        write_table(
            Path("list.csv"), [(f"pictures/{a[2:]}", b) for a, b in [*rows, ("p/none.png", "red")]], ("path", "label")
        )
    document = laid_out("resnet", "list.csv", archive=Path("all.zip") if packed else None)
    with pytest.raises(DataError, match=r"list\.csv: row 61: '\S+none\.png': no such image in"):
        checked(document)


def test_an_image_that_is_none_is_told_without_addresses_in_memory() -> None:
    labelled_images()
    Path("p/red/003.png").write_bytes(b"no image")
    with pytest.raises(SlimlineError, match=r"p: red/003\.png: can't be decoded: cannot identify image file; replace"):
        checked(laid_out("resnet", "p"))


@pytest.mark.parametrize(
    ("model", "message"), [("resnet", "t.csv: no column 'path'"), ("none", "--model: none: no such")]
)
def test_a_model_that_does_not_fit_the_data_is_told(monkeypatch: pytest.MonkeyPatch, model: str, message: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_table(Path("t.csv"), ROWS)
    with pytest.raises(DataError, match=message):
        laid_out(model, "t.csv")
