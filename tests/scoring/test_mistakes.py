"""What can't be read or written is told in one line, by its row, and nothing is written."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slimline import scoring
from slimline.errors import ArtifactError, DataError
from tests.scoring.tables import write_rows


def harm(folder: Path) -> None:
    (folder / "inner" / "077.png").write_bytes(b"\x89PNG no image")


def test_a_row_that_cannot_be_read_is_named_and_nothing_is_written(release: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "pictures")
    harm(tmp_path / "pictures")
    (tmp_path / "out.csv").write_text("old")
    with pytest.raises(
        DataError, match=r"pictures: row 114 \(inner/077\.png\): can't be decoded: cannot identify image file$"
    ):
        scoring.score(release, tmp_path / "pictures", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.csv", "pictures"]


ROW = json.dumps(np.zeros((1, 8, 8)).tolist())


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("[1, 2]", r"in\.csv: row 71: input 'image': cannot reshape"),
        ("nothing", r"in\.csv: row 71: input 'image': 'nothing' is neither a number nor a list"),
        ("", r"in\.csv: row 71: input 'image': '' is neither"),
        (ROW.replace("0.0", "NaN", 1), r"in\.csv: row 71: input 'image': holds NaN"),
    ],
    ids=["shape", "text", "empty", "NaN"],
)
def test_a_wrong_array_is_named_by_its_row(release: Path, tmp_path: Path, cell: str, said: str) -> None:
    source = write_rows(tmp_path / "in.csv", {"image": [ROW] * 70 + [cell] + [ROW] * 9})
    with pytest.raises(DataError, match=said):
        scoring.score(release, source, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_all_wrong_rows_are_told_at_once(release: Path, folder: Path, tmp_path: Path) -> None:
    """Each run used to tell one, so a file with a hundred took a hundred runs."""
    source = write_rows(tmp_path / "in.csv", {"image": [ROW, "", *[ROW] * 70, "", "", "", "word", *[ROW] * 9]})
    with pytest.raises(DataError) as caught:
        scoring.score(release, source, tmp_path / "out.csv")
    assert str(caught.value) == (
        f"{source}: rows 2, 73, 74 and 1 more: input 'image': '' is neither a number nor a list of numbers "
        f"(1 other mistake, such as {source}: row 76: input 'image': 'word' is neither a number nor a list of numbers)"
    )
    shutil.copytree(folder, tmp_path / "pictures")
    for name in ("000", "002", "004", "006", "148"):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        scoring.score(release, tmp_path / "pictures", tmp_path / "out.csv")
    assert str(caught.value) == (
        f"{tmp_path}/pictures: row 1 (000.png), row 2 (002.png), row 3 (004.png) and 2 more: can't be decoded: "
        "cannot identify image file"
    )
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "line 1: empty; a header with column names"),
        (b"image,image\n1,2\n", "line 1: column .image. stands there twice"),
        (b"image\n", "no row in it"),
        (b"id,image\n2\n", "line 2: 1 values, the header has 2"),
        (b"id,image\n1,\xff.png\n", "line 2: not UTF-8"),
        (b'id,image\n1,"a.png\n', "line 2: unexpected end of data"),
        (
            b"id,picture\n1,a.png\n",
            "no column of images, none called text, .*raw, filepath, filename, image, img; it has id, picture",
        ),
    ],
    ids=["empty", "twice", "no row", "short row", "encoding", "quote", "column"],
)
def test_a_wrong_csv_is_one_line(release: Path, tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "in.csv").write_bytes(text)
    with pytest.raises(DataError, match=f"in.csv: {said}"):
        scoring.score(release, tmp_path / "in.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def zero(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])


@pytest.mark.parametrize("damage", [truncate, zero])
def test_a_damaged_parquet_is_one_line(release: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"image": np.random.default_rng(0).random((200, 64)).tolist()}), source)
    damage(source)
    with pytest.raises(DataError, match=r"in\.parquet: (not a Parquet file|damaged after row \d+)"):
        scoring.score(release, source, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_what_cannot_be_read_or_written_is_one_line(release: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, target, said in (
        (tmp_path / "empty", tmp_path / "out.csv", "empty: no image in it"),
        (tmp_path / "nowhere", tmp_path / "out.csv", "nowhere: no such file or folder"),
        (
            folder / "notes.txt",
            tmp_path / "out.csv",
            r"notes\.txt: a folder of images, \.csv, .* is expected",
        ),
        (folder, tmp_path / "out.json", r"out\.json: \.csv or \.parquet is expected"),
        (folder, tmp_path / "no" / "out.csv", r"no: no such folder to write out\.csv into"),
        (folder, folder, "is the file that is read"),
    ):
        with pytest.raises(DataError, match=said):
            scoring.score(release, source, target)
    with pytest.raises(DataError, match="no column 'picture'; it has path"):
        scoring.score(release, folder, tmp_path / "out.csv", column="picture")
    with pytest.raises(ArtifactError, match=r"empty/manifest\.json: missing"):
        scoring.score(tmp_path / "empty", folder, tmp_path / "out.csv")


def test_parquet_without_pyarrow_names_the_file_and_the_extra(
    release: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=rf"^{tmp_path}/out\.parquet: pyarrow is not installed: pip install 'slimline"):
        scoring.score(release, folder, tmp_path / "out.parquet")


def test_a_damaged_image_in_an_archive_is_named(release: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "pictures")
    harm(tmp_path / "pictures")
    archive = shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path / "pictures")
    with pytest.raises(
        DataError, match=r"images\.zip: row \d+ \(inner/077\.png\): can't be decoded: cannot identify image file$"
    ):
        scoring.score(release, Path(archive), tmp_path / "out.csv")
