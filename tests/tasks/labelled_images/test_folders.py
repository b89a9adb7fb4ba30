"""Class folders: which folders are parts or classes, which files images; what is hidden or left out."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from slimline import preprocess, tables
from slimline.errors import DataError
from slimline.own_data import image_sources, image_stores
from slimline.project import own_data
from tests.pictures import LABELS, picture, write_folders, write_tar, write_zip
from tests.tasks.labelled_images.conftest import make


def test_folders_may_name_the_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    splits = make(write_folders(tmp_path / "p", 20, ("train", "val", "test"))).splits()
    assert (len(splits["validation"]), len(splits["test"])) == (60, 60)
    assert len(splits["train"]) + len(splits["calibration"]) == 60


def test_other_usual_names_of_parts_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    splits = make(write_folders(tmp_path / "p", 20, ("Training", "eval", "testing"))).splits()
    assert (len(splits["validation"]), len(splits["test"])) == (60, 60)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            "extra/red/0.png",
            "p: folder 'train' is a part of the data and 'extra' beside it isn't; parts are called tra",
        ),
        ("test/0.png", r"p: test/0\.png lies in no class folder, as others in 'train' do; take it out"),
    ],
)
def test_folders_that_are_parts_in_part_are_refused(tmp_path: Path, image: str, message: str) -> None:
    root = write_folders(tmp_path / "p", 2, ("train", "val"))
    (root / image).parent.mkdir(parents=True)
    picture("red", 0).save(root / image)
    with pytest.raises(DataError, match=message):
        image_sources.by_folder(image_stores.store(root))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train", "tram"):
        (tmp_path / name).mkdir()
        picture("red", 0).save(tmp_path / name / "0.png")
    assert {item.label for item in image_sources.by_folder(image_stores.store(tmp_path))} == {"train", "tram"}


SUFFIXES = ["avif", "jp2", "jfif", "jpe", "ppm", "pgm", "tga", "ico", "qoi", "apng", "JPEG"]


@pytest.mark.parametrize("packed", [False, True], ids=["folders", "zip"])
def test_files_of_any_picture_format_are_images_of_class_folders(tmp_path: Path, packed: bool) -> None:
    root = tmp_path / "p"
    for label in ("red", "blue"):
        (root / label).mkdir(parents=True)
        for index, suffix in enumerate(SUFFIXES):
            shown = picture(label, index)
            (shown.convert("L") if suffix == "pgm" else shown).save(root / label / f"{index}.{suffix}")
    if packed:
        with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
            for path in sorted(root.rglob("*.*")):
                archive.write(path, path.relative_to(root))
        root = tmp_path / "p.zip"
    files = image_stores.store(root)
    items = image_sources.by_folder(files)
    assert len(items) == 2 * len(SUFFIXES)
    assert len(preprocess.decode_image(list(image_sources.pictures(files, items)))) == len(items)
    assert tables.read(root).total == len(items)


@pytest.mark.parametrize(("copies", "more"), [(0, None), (1, ""), (3, " (and 2 more such inputs)")])
def test_the_same_picture_in_two_classes_is_told(folder: Path, copies: int, more: str | None) -> None:
    for at in range(copies):
        (folder / f"blue/copy{at}.png").write_bytes((folder / f"red/00{at}.png").read_bytes())
    task = make(folder)
    assert sum(map(len, task.splits().values())) == 120 + copies
    said = f"{folder}: blue/copy0.png and {folder}: red/000.png: the same input with different labels"
    assert task.notes == ([] if more is None else [f"{said}{more}; mend the wrong one, or take it out"])


def test_what_is_no_picture_is_left_out_and_named(folder: Path) -> None:
    for name in ("red/Thumbs.db", "red/README", "red/notes.txt", "red/.DS_Store", "blue/list.csv", "top.mat"):
        (folder / name).write_bytes(b"beside")
    task = make(folder)
    task.splits()
    assert (task.notes, own_data.left_out(folder)) == ([], [])
    (folder / "red/000.png").unlink()  # other rows: the notes are made with them
    for name in ("red/b.heic", "red/a.heic", "blue/c.h5", "blue/scan"):
        (folder / name).write_bytes(b"left out")
    task = make(folder)
    assert sum(map(len, task.splits().values())) == 119
    said = "4 files left out, such as blue/c.h5: Pillow reads no files without a suffix, .h5, .heic"
    assert (task.notes, own_data.left_out(folder)) == ([said], [said])


HIDDEN = [".ipynb_checkpoints/0.png", "__MACOSX/red/._000.png", "red/.cache/a.png", "red/._000.png", ".trash/x/b.png"]


@pytest.mark.parametrize("write", [None, write_zip, write_tar], ids=["folders", "zip", "tar"])
def test_hidden_folders_and_files_are_no_classes_nor_images(
    folder: Path, tmp_path: Path, write: Callable[[Path, Path], Path] | None
) -> None:
    for name in HIDDEN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture("red", 0).save(folder / name)
    data = folder if write is None else write(folder, tmp_path / ("all.zip" if write is write_zip else "all.tar.gz"))
    assert own_data.classes(data) == dict.fromkeys(LABELS, 40)
    assert tables.read(data).total == 120
    first = f"{'' if write is None else 'pictures/'}.ipynb_checkpoints/0.png"
    assert own_data.left_out(data) == [f"3 images left out, such as {first}: hidden, by names with . or __ first"]


def test_a_file_of_a_class_may_start_with_two_lines(folder: Path) -> None:
    picture("red", 99).save(folder / "red/__99.png")
    assert own_data.classes(folder) == {"blue": 40, "green": 40, "red": 41}


def test_a_class_of_no_picture_says_why(folder: Path) -> None:
    (folder / "black").mkdir()
    (folder / "black/a.heic").write_bytes(b"left out")
    with pytest.raises(
        DataError, match=r"black: a class folder .*\(1 file left out, such as black/a\.heic: Pillow rea"
    ):
        own_data.classes(folder)


def test_links_that_lead_nowhere_are_named(folder: Path) -> None:
    (folder / "red/999.png").symlink_to(folder / "gone.png")
    (folder / "red/notes.txt").symlink_to(folder / "gone.txt")
    task = make(folder)
    assert sum(map(len, task.splits().values())) == 120
    said = "1 link left out, such as red/999.png: no file where it leads"
    assert (task.notes, own_data.left_out(folder)) == ([said], [said])
