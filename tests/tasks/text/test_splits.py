"""Splits are disjoint and in proportion, groups whole, and splits that are given stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimline.errors import DataError
from slimline.task import SPLITS, Split
from slimline.tasks.text import text
from tests.encoders import LABELS, texts, write_table
from tests.tasks.text.conftest import make

pytest.importorskip("tokenizers")


def rows(splits: dict[str, Split]) -> dict[str, set[bytes]]:
    return {name: {row.tobytes() for row in split.inputs["input_ids"]} for name, split in splits.items()}


def test_splits_are_whole_disjoint_and_in_proportion(folder: Path) -> None:
    splits = make(str(write_table(folder / "t.csv", texts(600)))).splits()
    assert set(splits) == set(SPLITS)
    assert sum(map(len, splits.values())) == 600
    assert 100 <= len(splits["test"]) <= 140
    for name, split in splits.items():
        assert set(np.unique(split.targets)) == {0, 1, 2}, name
    seen: set[bytes] = set()
    for own in rows(splits).values():
        assert not seen & own
        seen |= own


def test_groups_never_straddle(folder: Path) -> None:
    found = [(a, b, f"author {at % 40}") for at, (a, b) in enumerate(texts(400))]
    splits = make(
        str(write_table(folder / "t.csv", found, ("text", "label", "author"))), group="author", labels=list(LABELS)
    ).splits()
    author = {}
    task = make(str(folder / "t.csv"), group="author")
    for name, split in splits.items():
        for row in split.inputs["input_ids"]:
            author.setdefault(row.tobytes(), name)
    for at in range(40):
        mine = [a for a, _, who in found if who == f"author {at}"]
        where = {author[row.tobytes()] for row in task.tokens(mine)["input_ids"]}
        assert len(where) == 1


@pytest.mark.parametrize("blank", [None, "", " ", float("nan")], ids=["null", "empty", "space", "nan"])
def test_rows_without_a_group_are_groups_of_their_own(folder: Path, blank: Any) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    found = texts(200)
    known = 7.0 if blank != blank else "seven"  # noqa: PLR0124  (what is no number isn't itself)
    who = [known if at < 20 else blank for at in range(200)]
    columns = {"text": [a for a, _ in found], "label": [b for _, b in found], "who": who}
    parquet.write_table(pa.table(columns), folder / "t.parquet")
    task = make(str(folder / "t.parquet"), group="who")
    shares = {name: len(split) for name, split in task.splits().items()}
    assert shares == pytest.approx({"train": 120, "validation": 20, "calibration": 20, "test": 40}, abs=1)
    where = {int(row): part for part in SPLITS for row in task.rows_of(part)}
    assert len({where[at] for at in range(20)}) == 1


def test_given_files_stay_what_they_are_and_leaks_go(folder: Path) -> None:
    train, test = texts(200), texts(60, seed=1)
    data = {
        "train": str(write_table(folder / "a.csv", [*train, *test[:5]])),
        "test": str(write_table(folder / "b.csv", test)),
    }
    task = make(data)
    splits = task.splits()
    assert len(splits["test"]) == 60
    assert sum(map(len, splits.values())) == 260
    assert task.notes == ["5 rows left out: the same input, or its group, stands in a later split"]


@pytest.mark.parametrize("answer", ["one", "many"])
def test_the_same_text_with_two_labels_is_told(folder: Path, answer: str) -> None:
    found = texts(200)
    (line, label), other = found[7], found[8]
    data = str(write_table(folder / "t.csv", [*found, (line, "sport" if label != "sport" else "money"), other]))
    task = make(data, answer=answer)
    task.splits()
    assert task.notes == [
        f"{data}: row 8 and {data}: row 201: the same input with different labels; mend the wrong one, or take it out"
    ]


def test_the_same_text_with_two_numbers_is_not(folder: Path) -> None:
    """Numbers are measured, and two measurements differ."""
    found = [(line, str(at)) for at, (line, _) in enumerate(texts(200))]
    data = write_table(folder / "t.csv", [*found, (found[0][0], "9")])
    task = text(data=str(data), tokenizer="model", max_length=16, answer="number", tolerance=0.1)
    task.splits()
    assert task.notes == []


@pytest.mark.filterwarnings("error")
def test_leaks_that_leave_no_row_to_train_on_are_told_in_one_line(folder: Path) -> None:
    found = texts(40)
    data = {name: str(write_table(folder / f"{name}.csv", found)) for name in ("train", "test")}
    with pytest.raises(DataError) as caught:
        make(data).splits()
    assert "\n" not in str(caught.value)


def test_a_split_column_is_kept_to(folder: Path) -> None:
    found = [(a, b, ("train", "dev", "test")[at % 5 if at % 5 < 3 else 0]) for at, (a, b) in enumerate(texts(300))]
    task = make(str(write_table(folder / "t.csv", found, ("text", "label", "part"))), split="part")
    splits = task.splits()
    assert (len(splits["validation"]), len(splits["test"])) == (60, 60)
