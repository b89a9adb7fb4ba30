"""The task keeps its promises: whole splits, rows prepared once, what serving makes."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimline import preprocess
from slimline.errors import ParamsError
from slimline.file_index import FILE, FileIndex
from slimline.manifest import sha256
from slimline.task import SPLITS
from slimline.testing import check_task
from tests.pictures import picture, write_tar
from tests.tasks.labelled_images.conftest import all_rows, make


def test_the_task_keeps_the_promises_of_a_task(folder: Path) -> None:
    check_task(make(folder), [(folder / "red" / "000.png").read_bytes(), (folder / "blue" / "000.png").read_bytes()])


def test_splits_are_whole_and_in_proportion(folder: Path) -> None:
    splits = make(folder).splits()
    assert set(splits) == set(SPLITS)
    assert sum(map(len, splits.values())) == 120
    assert all(set(np.unique(split.targets)) == {0, 1, 2} for split in splits.values())


def test_prepared_rows_are_found_without_reading_their_source(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = write_tar(folder, tmp_path / "all.tar.gz")
    expected = all_rows(make(packed))
    index = FileIndex(FILE)
    index.facts(packed, sha256)  # as fingerprints do before any stage
    index.save()

    def refused(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("slimline.own_data.rows.manifest.sha256", wraps(sha256)(refused))
    monkeypatch.setattr("tarfile.open", refused)
    assert all_rows(make(packed)) == expected
    with packed.open("ab") as file:
        file.write(bytes(8))
    with pytest.raises(AssertionError):
        make(packed).splits()


def test_a_number_stands_for_all_channels_and_both_sides(folder: Path) -> None:
    one = make(folder, size=16, mean=0.4, std=0.3)
    listed = make(folder, size=[16, 16], mean=[0.4] * 3, std=[0.3] * 3)
    assert (one.preprocess(), one.signature()) == (listed.preprocess(), listed.signature())
    assert all_rows(one) == all_rows(listed)
    with pytest.raises(ParamsError, match=r"task\.args\.size: one number, or height and width, found 3"):
        make(folder, size=[1, 2, 3])


def test_what_is_stored_is_what_serving_makes(folder: Path) -> None:
    task = make(folder)
    expected = preprocess.run(task.preprocess(), [picture("red", 7).tobytes() and (folder / "red/007.png")], trust=None)
    assert np.asarray(expected["image"][0]).tobytes() in all_rows(task)


def test_rows_index_like_an_array(folder: Path) -> None:
    array = make(folder).splits()["train"].inputs["image"]
    whole = np.asarray(array)
    assert (array.shape, array.dtype, len(array), array.ndim) == (whole.shape, np.float32, len(whole), 4)
    assert np.array_equal(array[3], whole[3])
    assert np.array_equal(array[2:5], whole[2:5])
    assert np.array_equal(array[np.array([5, 0])], whole[[5, 0]])
    assert array[0:0].shape == (0, 3, 16, 16)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"size": [64, "64"]}, r"task\.args\.size\.1: expected integer \| list of integer, found '64'"),
        ({"shift": "4"}, r"task\.args\.shift: expected integer, found '4'"),
        ({"mode": "BGR"}, "neither RGB nor L"),
        ({"mean": [1, 2]}, "one number or 3"),
        ({"test": 1.5}, "task.args.test"),
    ],
)
def test_wrong_arguments_are_named(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        make(Path("x"), **args)
