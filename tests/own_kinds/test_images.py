"""Whatever images a user has, in folders, archives or tables, ``slimline init`` makes a project of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from slimline.project import own_project
from slimline.project.own_project import Own
from tests.encoders import write_table
from tests.own_kinds.conftest import WAYS, checked, labelled_images, laid_out
from tests.pictures import write_zip

pytest.importorskip("transformers")


@pytest.mark.parametrize("way", WAYS)
def test_a_table_of_images_makes_a_project_that_checks(way: str) -> None:
    write_table(Path("list.csv"), [row[:2] for row in labelled_images(way)], ("path", "category"))
    document = laid_out("resnet", "list.csv", "small")
    assert document["task"]["args"]["label"] == "category"
    assert document["task"]["args"].get("answer", "one") == way
    checked(document)


def test_a_table_of_images_says_split_and_group(folder: Path) -> None:
    write_table(Path("list.csv"), labelled_images(), ("path", "label", "split", "group"))
    document = laid_out("resnet", "list.csv")
    assert {name: document["task"]["args"].get(name) for name in ("split", "group")} == {
        "split": "split", "group": "group",
    }  # fmt: skip
    write_table(Path("who.csv"), labelled_images_again(folder), ("path", "label", "part", "who"))
    document = laid_out("resnet", "who.csv", split="part", group="who")
    assert any("12 validation, " in line and "12 test" in line for line in checked(document))


def labelled_images_again(folder: Path) -> list[tuple[Any, ...]]:
    """Return the rows once more, each image in a group of its own."""
    shutil.rmtree(folder / "p")
    return [(*row[:3], row[0]) for row in labelled_images()]


def test_a_table_may_list_images_in_an_archive() -> None:
    rows = labelled_images()
    write_zip(Path("p"), Path("all.zip"))
    write_table(Path("list.csv"), [(f"pictures/{row[0][2:]}", row[1]) for row in rows], ("path", "label"))
    shutil.rmtree("p")
    document = laid_out("resnet", "list.csv", archive=Path("all.zip"))
    assert document["task"]["args"]["archive"] == "all.zip"
    checked(document)


def test_init_says_which_files_of_class_folders_are_no_pictures() -> None:
    labelled_images()
    Path("p/red/a.heic").write_bytes(b"left out")
    document = laid_out("resnet", "p")
    lines = list(own_project.notes(yaml.safe_dump(document), Own("resnet", Path("p"))))
    assert "found: p: 1 file left out, such as red/a.heic: Pillow reads no .heic" in lines
