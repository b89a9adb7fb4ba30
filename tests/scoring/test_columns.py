"""What stands beside an answer: the columns of the input, the input itself, or the row's number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from slimline import scoring
from slimline.answers import Answers
from slimline.errors import DataError
from tests.scoring.tables import TEXTS, image_bytes, rows, same, write_rows


def test_parquet_with_bytes_keeps_the_other_columns_and_their_types(
    release: Path, pixels: NDArray[np.uint8], expected: tuple[list[str], NDArray[np.float32]], tmp_path: Path
) -> None:
    table = pa.table(
        {
            "id": pa.array(range(150), pa.int64()),
            "note": pa.array([None] * 100 + ["late"] * 50, pa.string()),
            "label": pa.array([index % 10 for index in range(150)], pa.int8()),
            "image": [{"bytes": image_bytes(image), "path": None} for image in pixels],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=40)
    scoring.score(release, tmp_path / "in.parquet", tmp_path / "out.parquet", batch=32)
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.schema.names[:4] == ["id", "note", "input.label", "label"]
    assert [out.schema.field(name).type for name in ("id", "note", "input.label")] == [
        pa.int64(),
        pa.string(),
        pa.int8(),
    ]
    assert out["id"].to_pylist() == list(range(150))
    assert out["note"].to_pylist() == table["note"].to_pylist()
    same(out.to_pydict(), expected, list(range(150)))


def test_outputs_without_labels_are_written_as_numbers() -> None:
    answers = Answers({"outputs": [{"name": "price", "shape": ["batch", 1]}, {"name": "box", "shape": ["batch", 2]}]})
    outputs = {"price": np.array([[1.5], [2.5]], np.float32), "box": np.array([[1, 2], [3, 4]], np.float32)}
    found = scoring._scored(answers, outputs)
    assert {name: list(values) for name, values in found.items()} == {
        "price": [1.5, 2.5], "box.0": [1, 3], "box.1": [2, 4],
    }  # fmt: skip


@pytest.mark.parametrize("target", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("source", ["in.csv", "in.tsv", "in.jsonl", "in.parquet"])
def test_a_texts_columns_and_the_text_itself_stand_beside_its_answer(
    text_release: Path, tmp_path: Path, source: str, target: str
) -> None:
    columns: dict[str, list[Any]] = {
        "id": [f"n{at}" for at in range(90)], "text": TEXTS, "label": [at % 2 for at in range(90)],
    }  # fmt: skip
    scoring.score(text_release, write_rows(tmp_path / source, columns), tmp_path / target)
    found = rows(tmp_path / target)
    assert list(found)[:4] == ["id", "text", "input.label", "label"]
    assert (found["id"], found["text"]) == (columns["id"], columns["text"])
    assert list(map(int, found["input.label"])) == columns["label"]
    own = dict(zip(found["text"], found["label"], strict=True))
    assert [own[text] for text in TEXTS] == found["label"], "an answer beside another row's text"


def test_pairs_and_other_lists_and_objects_are_written_as_json(pair_release: Path, tmp_path: Path) -> None:
    pairs = [["the bank", "a goal"], ["a goal", "é"]] * 40
    columns = {"text": pairs, "tags": [None] * 70 + [["new"]] * 10, "meta": [{"page": 1}] * 80}
    scoring.score(pair_release, write_rows(tmp_path / "in.jsonl", columns), tmp_path / "out.csv")
    found = rows(tmp_path / "out.csv")
    assert [json.loads(each) for each in found["text"]] == pairs
    assert "é" in found["text"][1]
    assert found["tags"] == [""] * 70 + ['["new"]'] * 10
    assert found["meta"] == ['{"page": 1}'] * 80


def test_where_no_column_names_a_row_its_number_does(
    release: Path, pixels: NDArray[np.uint8], expected: tuple[list[str], NDArray[np.float32]], tmp_path: Path
) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"image": [image_bytes(image) for image in pixels]}), source)
    scoring.score(release, source, tmp_path / "out.csv")
    found = rows(tmp_path / "out.csv")
    assert list(found)[:2] == ["row", "label"]
    assert found["row"] == [str(number) for number in range(1, 151)]
    same(found, expected, list(range(150)))


def test_an_images_path_stays_where_its_bytes_do_not(release: Path, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    images = [{"bytes": image_bytes(image), "path": f"{at}.png"} for at, image in enumerate(pixels)]
    pq.write_table(pa.table({"image": images}), tmp_path / "in.parquet")
    scoring.score(release, tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = rows(tmp_path / "out.parquet")
    assert found["image"] == [f"{at}.png" for at in range(150)]
    assert "row" not in found


def test_two_columns_of_one_name_are_refused(text_release: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.csv", {"text": ["a"], "label": ["x"], "input.label": ["y"]})
    with pytest.raises(DataError, match=r"in\.csv: column 'label' is also one of the answers, and 'input\.label' is"):
        scoring.score(text_release, source, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_values_of_several_types_are_no_parquet_column_and_said_so(text_release: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", {"text": TEXTS, "note": [None] * 70 + ["late"] * 20})
    with pytest.raises(DataError, match=r"^\S+/out\.parquet: a column's values are of several types .*; write \.csv$"):
        scoring.score(text_release, source, tmp_path / "out.parquet")
    assert scoring.score(text_release, source, tmp_path / "out.csv") == 90
