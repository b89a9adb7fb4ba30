"""One's own images: folders, manifests, archives, every kind of picture; wrong ones are named."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from slimline import image_sources, listed_files, preprocess, tables
from slimline.errors import DataError, ParamsError
from slimline.file_index import FILE, FileIndex
from slimline.manifest import sha256
from slimline.project import own_data
from slimline.task import SPLITS
from slimline.tasks.labelled_images import Images, images
from slimline.testing import check_task

COLOURS = {"green": (30, 180, 40), "red": (190, 40, 30), "blue": (20, 60, 200)}
LABELS = sorted(COLOURS)


def picture(label: str, index: int) -> Image.Image:
    """Return a picture of a label's colour with noise of its own, 20×24."""
    noise = np.random.default_rng([LABELS.index(label), index]).integers(-20, 20, (20, 24, 3))
    return Image.fromarray((np.array(COLOURS[label]) + noise).clip(0, 255).astype(np.uint8))


def write_folders(root: Path, each: int = 40, parts: tuple[str, ...] = ("",)) -> Path:
    for part in parts:
        for label in LABELS:
            folder = root / part / label
            folder.mkdir(parents=True)
            for index in range(each):
                picture(label, index + 1000 * parts.index(part)).save(folder / f"{index:03}.png")
    return root


def write_zip(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, f"pictures/{path.relative_to(folder)}")
    return target


def test_names_in_a_zip_are_utf_8_even_where_it_does_not_say_so(tmp_path: Path) -> None:
    (write_folders(tmp_path / "pictures", 2) / "red").rename(tmp_path / "pictures/größer")
    whole = write_zip(tmp_path / "pictures", tmp_path / "said.zip").read_bytes()
    flag = re.compile(rb"(PK\x03\x04..|PK\x01\x02....)\x00\x08", re.DOTALL)
    (tmp_path / "p.zip").write_bytes(flag.sub(lambda found: found[1] + bytes(2), whole))
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        assert not any("größer" in name for name in archive.namelist())
    store = image_sources.store(tmp_path / "p.zip")
    assert {name.split("/")[-2] for name in store.names()} == {"größer", "green", "blue"}
    assert all(store.read(name).startswith(b"\x89PNG") for name in store.names())
    assert image_sources.store(tmp_path / "said.zip").names() == store.names()


def write_tar(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, "pictures")
    return target


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_folders(tmp_path / "pictures")


def make(data: Path, **args: Any) -> Images:
    return images(**{"data": str(data), "labels": LABELS, "size": [16, 16]} | args)


def test_the_task_keeps_the_promises_of_a_task(folder: Path) -> None:
    check_task(make(folder), [(folder / "red" / "000.png").read_bytes(), (folder / "blue" / "000.png").read_bytes()])


def test_splits_are_whole_and_in_proportion(folder: Path) -> None:
    splits = make(folder).splits()
    assert set(splits) == set(SPLITS)
    assert sum(map(len, splits.values())) == 120
    assert all(set(np.unique(split.targets)) == {0, 1, 2} for split in splits.values())


def all_rows(task: Images) -> set[bytes]:
    return {np.asarray(row).tobytes() for split in task.splits().values() for row in split.inputs["image"]}


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_an_archive_holds_the_same_rows(folder: Path, tmp_path: Path, write: Callable[[Path, Path], Path]) -> None:
    archive = write(folder, tmp_path / ("all.zip" if write is write_zip else "all.tar.gz"))
    assert all_rows(make(archive)) == all_rows(make(folder))


@pytest.mark.parametrize("suffix", [".tar", ".TAR", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".ZIP"])
@pytest.mark.parametrize("listed", [False, True], ids=["folders", "table"])
def test_any_archive_however_its_names_start(folder: Path, tmp_path: Path, suffix: str, listed: bool) -> None:
    packed = tmp_path / f"all{suffix}"
    if suffix == ".ZIP":
        write_zip(folder, packed)
    else:
        subprocess.run(["tar", "-caf", packed.with_name(packed.name.lower()), "-C", folder, "."], check=True)
        packed.with_name(packed.name.lower()).rename(packed)
    if not listed:
        assert all_rows(make(packed)) == all_rows(make(folder))
        return
    start = "pictures/" if suffix == ".ZIP" else ""
    rows = [[f"{start}{label}/{index:03}.png", label] for label in LABELS for index in range(40)]
    table = write_manifest(tmp_path, rows, ["path", "label"])
    assert all_rows(make(table, archive=str(packed))) == all_rows(make(folder))


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

    monkeypatch.setattr("slimline.own_rows.manifest.sha256", wraps(sha256)(refused))
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
        image_sources.by_folder(image_sources.store(root))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train", "tram"):
        (tmp_path / name).mkdir()
        picture("red", 0).save(tmp_path / name / "0.png")
    assert {item.label for item in image_sources.by_folder(image_sources.store(tmp_path))} == {"train", "tram"}


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_half_an_archive_is_told_in_one_line(folder: Path, tmp_path: Path, kind: str, share: float) -> None:
    whole, half = tmp_path / "whole", tmp_path / f"half.{kind}"
    with tarfile.open(whole, "w:gz" if kind == "tar.gz" else "w") as archive:
        archive.add(folder, "pictures")
    half.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(DataError, match=rf"half\.{kind}: damaged, or not whole: .*; pack it again$") as caught:
        own_data.classes(half)
    assert "\n" not in str(caught.value)


def write_manifest(root: Path, rows: list[list[str]], names: list[str]) -> Path:
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return root / "list.csv"


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


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GREY = Image.fromarray(np.full((8, 8), 100, np.uint8))
DEEP = Image.fromarray(np.full((8, 8), 100 * 256, np.uint16))
WIDE = Image.fromarray(np.full((8, 8), 100, np.int32))
CLEAR = Image.fromarray(np.concatenate([np.full((8, 8, 3), 7, np.uint8), np.zeros((8, 8, 1), np.uint8)], 2))
FLOATS = Image.fromarray(np.full((8, 8), 100, np.float32))
SHARES = Image.fromarray(np.full((8, 8), 100 / 255, np.float32))
LAB = ImageCms.applyTransform(
    GREY.convert("RGB"),
    ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
)
PALETTE = Image.fromarray(np.full((8, 8, 3), 100, np.uint8)).quantize(4)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        pytest.param(encoded(GREY, "PNG"), 100, id="grey"),
        pytest.param(encoded(DEEP, "PNG"), 100, id="16-bit grey"),
        pytest.param(encoded(DEEP, "TIFF"), 100, id="16-bit tiff"),
        pytest.param(encoded(DEEP, "PPM"), 100, id="16-bit pgm"),
        pytest.param(b"P5 8 8 4095\n" + (100 * 16).to_bytes(2) * 64, 100, id="12-bit pgm"),
        pytest.param(encoded(WIDE, "TIFF"), 100, id="8 bits in 32"),
        pytest.param(encoded(CLEAR, "PNG"), 255, id="transparent"),
        pytest.param(encoded(PALETTE, "GIF"), 100, id="palette"),
        pytest.param(encoded(GREY.convert("RGB"), "WEBP", lossless=True), 100, id="webp"),
        pytest.param(encoded(FLOATS, "TIFF"), 100, id="floats"),
        pytest.param(encoded(SHARES, "TIFF"), 100, id="floats up to 1"),
        pytest.param(encoded(LAB, "TIFF"), 100, id="lab"),
        pytest.param(encoded(GREY.convert("1"), "TIFF"), None, id="one bit"),
        pytest.param(encoded(GREY.convert("CMYK"), "JPEG"), None, id="cmyk"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_kind_of_picture_is_read(content: bytes, value: int | None, mode: str) -> None:
    steps = images(data="x", labels=LABELS, size=[8, 8], mode=mode)._to_pixels
    (array,) = preprocess.run({"format": 1, "input": "image", "steps": steps}, [content], trust=None).values()
    assert array.shape == (1, 8, 8, len(mode))
    if value is not None:
        assert np.abs(array.astype(int) - value).max() <= 1


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
    files = image_sources.store(root)
    items = image_sources.by_folder(files)
    assert len(items) == 2 * len(SUFFIXES)
    assert len(preprocess.decode_image(list(image_sources.pictures(files, items)))) == len(items)
    assert tables.read(root).total == len(items)


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


@pytest.mark.parametrize(("most", "told"), [(255, True), (4095, True), (65535, False)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_images_of_fewer_bits_in_16_are_told_by_how_dark_they_are(
    folder: Path, most: int, told: bool, suffix: str
) -> None:
    task = make(folder)
    task.splits()
    assert task.notes == []
    for at in range(20):
        pixels = np.random.default_rng(at).integers(0, most, (8, 8), np.uint16, endpoint=True)
        (folder / f"red/{at:03}.png").unlink()
        Image.fromarray(pixels).save(folder / f"red/{at:03}.{suffix}")
    task = make(folder)
    task.splits()
    said = "20 of 120 images are black or nearly so, all pixels below 16 of 255: 16-bit files count to 65,535"
    assert [note.startswith(said) for note in task.notes] == [True] * told


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


def test_a_photograph_is_turned_upright() -> None:
    pixels: NDArray[np.uint8] = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90° clockwise
    content = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    (found,) = preprocess.decode_image([content], upright=True)
    assert found.shape == (8, 4, 3)
    assert found[0, 0, 0] == 255
    assert found[-1, -1, 0] == 0


WRONG: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "damaged": (lambda f: (f / "red/003.png").write_bytes(b"no image") and f, {}, r"red/003.png: can't be decoded"),
    "no folder": (lambda f: f / "missing", {}, r"missing: no such file or folder"),
    "loose": (lambda f: picture("red", 0).save(f / "a.png") or f, {}, r"a.png lies in no class folder"),
    "unknown class": (lambda f: f, {"labels": ["red", "green"]}, r"blue/000.png, .* and 37 more: unknown label 'blue'"),
    "empty class": (lambda f: f, {"labels": [*LABELS, "black"]}, r"label 'black' has no training row"),
    "floats": (
        lambda f: Image.fromarray(np.array([[-3.2, 812]], np.float32)).save(f / "red/x.tif") or f, {},
        r"red/x.tif: can't be decoded: float pixels from -3.2 to 812: save them as 8 or 16 bits"),
    "no numbers": (
        lambda f: Image.fromarray(np.array([[np.nan, 1]], np.float32)).save(f / "red/x.tif") or f, {},
        r"red/x.tif: can't be decoded: float pixels from nan to nan: save them as 8 or 16 bits"),
    "integers of 32 bits": (
        lambda f: Image.fromarray(np.array([[7, 25600]], np.int32)).save(f / "red/x.tif") or f, {},
        r"red/x.tif: can't be decoded: integer pixels from 7 to 25600: save them as 8 bits, or unsigned 16"),
    "negative": (
        lambda f: Image.fromarray(np.array([[-7, 25]], np.int32)).save(f / "red/x.tif") or f, {},
        r"red/x.tif: can't be decoded: integer pixels from -7 to 25: save them as 8 bits, or unsigned 16"),
    "no archive": (lambda f: (f / "a.zip").write_bytes(b"PK") and f / "a.zip", {}, r"a.zip: not an archive"),
    "not there": (
        lambda f: write_manifest(f, [["red/999.png", "red"]], ["path", "label"]), {}, r"row 1: 'red/999.png': no such"),
    "no column": (lambda f: write_manifest(f, [["a", "b"]], ["file", "label"]), {}, r"list.csv: no column 'path'"),
    "no image": (lambda f: (f / "none").mkdir() or f / "none", {}, r"none: no image in it"),
}  # fmt: skip


def test_all_wrong_images_are_told_in_one_line(folder: Path) -> None:
    for name in ("blue/003", "green/000", "red/001", "red/039"):
        (folder / f"{name}.png").write_bytes(b"no image")
    message = r"pictures: blue/003\.png, green/000\.png, red/001\.png and 1 more: can't be decoded: .*; replace it, or"
    with pytest.raises(DataError, match=message) as caught:
        make(folder).splits()
    assert "\n" not in str(caught.value)


def test_wrong_images_are_told_where_reading_breaks_behind_them(folder: Path, tmp_path: Path) -> None:
    packed = write_zip(folder, tmp_path / "all.zip")
    with zipfile.ZipFile(packed) as archive:
        last = archive.infolist()[-1]
    content = bytearray(packed.read_bytes())
    content[last.header_offset + 200] ^= 255
    packed.write_bytes(content)
    message = r"blue/000\.png, .* and 37 more: unknown label 'blue'\..*; then .*all\.zip: pictures/red/039\.png: can"
    with pytest.raises(DataError, match=message) as caught:
        make(packed, labels=["red", "green"]).splits()
    assert "\n" not in str(caught.value)


def test_all_listed_images_that_are_not_there_are_told(folder: Path) -> None:
    names = ["red/000", "red/998", "red/001", "red/999"]
    table = write_manifest(folder, [[f"{name}.png", "red"] for name in names], ["path", "label"])
    with pytest.raises(DataError, match=r"list\.csv: rows 2 and 4: 'red/998\.png' and others: no such image in"):
        make(table).splits()


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_is_named(folder: Path, case: str) -> None:
    write, args, message = WRONG[case]
    with pytest.raises(DataError, match=message) as caught:
        make(write(folder), **args).splits()
    assert "\n" not in str(caught.value)


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
