"""Tables that list images: their paths, labels, splits and groups."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from slimline import tables
from slimline.errors import DataError
from slimline.own_data import listed_files
from slimline.project import own_data
from slimline.task import SPLITS
from slimline.tasks.labelled_images import images
from tests.pictures import LABELS, write_manifest
from tests.tasks.labelled_images.conftest import all_rows, make


@pytest.mark.parametrize("name", ["file_name", "filepath", "filename", "image", "img"])
def test_a_manifest_may_have_other_names_for_paths(folder: Path, name: str) -> None:
    rows = [[f"{label}/{index:03}.png", label] for label in LABELS for index in range(40)]
    assert all_rows(make(write_manifest(folder, rows, [name, "label"]))) == all_rows(make(folder))
    found = own_data.describe_images(folder / "list.csv")
    assert (found.text, found.labels) == ([name], LABELS)
    assert len(listed_files.named_files(folder / "list.csv")) == 120


def test_a_path_comes_before_what_else_may_name_a_file(folder: Path) -> None:
    names = ["red/000.png", "blue/000.png", "red/001.png", "blue/001.png"]
    write_manifest(folder, [["7", name, name.split("/")[0]] for name in names], ["image", "path", "label"])
    assert own_data.describe_images(folder / "list.csv").text == ["path"]
    assert listed_files.named_files(folder / "list.csv") == names


def test_images_in_a_table_itself_are_told(folder: Path) -> None:
    line = {"image": {"bytes": "…", "path": "0.png"}, "label": "red"}
    (folder / "t.jsonl").write_text(f"{json.dumps(line)}\n")
    with pytest.raises(DataError, match=r"t\.jsonl: row 1: column 'image': an image itself, not the path of its file"):
        make(folder / "t.jsonl").splits()


def test_a_manifest_says_label_split_and_group(folder: Path) -> None:
    rows = [
        [f"{label}/{index:03}.png", label, "test" if index % 10 < 2 else "train", f"{label[0]}{index // 2}"]
        for label in LABELS
        for index in range(40)
    ]
    manifest = write_manifest(folder, rows, ["path", "kind", "part", "who"])
    splits = make(manifest, label="kind", split="part", group="who").splits()
    assert len(splits["test"]) == 24
    where: dict[bytes, str] = {
        np.asarray(row).tobytes(): name for name, split in splits.items() for row in split.inputs["image"]
    }
    task = make(manifest, label="kind", split="part", group="who")
    for label in LABELS:
        for pair in range(20):
            files = [(folder / label / f"{index:03}.png").read_bytes() for index in (2 * pair, 2 * pair + 1)]
            assert len({where[row.tobytes()] for row in task.inputs_of(files)["image"]}) == 1


def test_listed_numbers_have_a_decimal_comma_where_semicolons_separate(folder: Path) -> None:
    rows = [f"{label}/{at:03}.png;{at},5" for label in LABELS for at in range(40)]
    (folder / "list.csv").write_bytes("\r\n".join(["path;label", *rows]).encode())
    task = images(data=str(folder / "list.csv"), size=16, answer="number", tolerance=1)
    found = np.concatenate([split.targets for split in task.splits().values()])
    assert set(found.tolist()) == {at + 0.5 for at in range(40)}


def test_listed_numbers_with_points_that_may_be_either_are_told(folder: Path) -> None:
    (folder / "list.csv").write_text("path;label\nred/000.png;1.234\nred/001.png;3,5\n")
    with pytest.raises(
        DataError, match=r"list\.csv: row 1: column 'label': '1\.234' may be 1234 or .* row 2 has '3,5'"
    ):
        images(data=str(folder / "list.csv"), size=16, answer="number", tolerance=1).splits()


def test_listed_images_without_a_group_are_groups_of_their_own(folder: Path) -> None:
    lines = [{"path": f"{label}/{index:03}.png", "label": label} for label in LABELS for index in range(40)]
    groups = [*["one"] * 10, *["", None] * 55]
    (folder / "t.jsonl").write_text(
        "".join(json.dumps(line | {"who": who}) + "\n" for line, who in zip(lines, groups, strict=True))
    )
    task = make(folder / "t.jsonl", group="who")
    assert {name: len(split) for name, split in task.splits().items()} == {
        name: len(split) for name, split in make(folder).splits().items()
    }
    where = {int(row): part for part in SPLITS for row in task.rows_of(part)}
    assert len({where[at] for at in range(10)}) == 1


def test_all_listed_images_that_are_not_there_are_told(folder: Path) -> None:
    names = ["red/000", "red/998", "red/001", "red/999"]
    table = write_manifest(folder, [[f"{name}.png", "red"] for name in names], ["path", "label"])
    with pytest.raises(DataError, match=r"list\.csv: rows 2 and 4: 'red/998\.png' and others: no such image in"):
        make(table).splits()


def test_paths_that_windows_wrote_are_paths(folder: Path) -> None:
    rows = [[f"{label}\\{at:03d}.png", label] for label in LABELS for at in range(40)]
    table = write_manifest(folder, rows, ["path", "label"])
    assert sum(map(len, make(table).splits().values())) == 120
    assert tables.read(table).image(rows[0][0]) == folder / LABELS[0] / "000.png"
    assert listed_files.named_files(table)[0] == f"{LABELS[0]}/000.png"
