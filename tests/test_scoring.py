"""Offline scoring: the same answers as the Predictor's, for every kind of file, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from slimline import scoring
from slimline.answers import Answers
from slimline.cli import main
from slimline.errors import ArtifactError, DataError, InputError
from slimline.predictor import Predictor

LABELS = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def release(two_releases: tuple[Path, Path]) -> Path:
    return two_releases[0]


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (150, 8, 8), np.uint8)


@pytest.fixture(scope="module")
def folder(pixels: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    (root / "inner").mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(root / ("inner" if index % 2 else "") / f"{index:03}.png")
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="module")
def expected(release: Path, pixels: NDArray[np.uint8]) -> tuple[list[str], NDArray[np.float32]]:
    """What the Predictor answers to the images, by index."""
    document = json.loads((release / "chain" / "distill" / "preprocess.json").read_text())
    from slimline import preprocess

    predictor = Predictor(release)
    answers = Answers(predictor.signature)
    labels, probabilities = answers.of(predictor.predict(preprocess.run(document, list(pixels))))
    predictor.close()
    assert labels is not None
    return labels, probabilities


def image_bytes(image: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def rows(path: Path) -> dict[str, list[Any]]:
    if path.suffix == ".parquet":
        found: dict[str, list[Any]] = pq.read_table(path).to_pydict()
        return found
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return {name: [line[name] for line in lines] for name in lines[0]}


def same(found: dict[str, list[Any]], expected: tuple[list[str], NDArray[np.float32]], order: list[int]) -> None:
    assert found["label"] == [expected[0][index] for index in order]
    probabilities = np.array([found[f"probability.{label}"] for label in LABELS], np.float64).T
    np.testing.assert_allclose(probabilities, expected[1][order], atol=1e-5)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_folder_of_images(
    release: Path, folder: Path, expected: tuple[list[str], NDArray[np.float32]], tmp_path: Path, suffix: str
) -> None:
    target = tmp_path / f"out{suffix}"
    seen: list[tuple[int, int]] = []
    assert scoring.score(release, folder, target, progress=lambda done, total: seen.append((done, total))) == 150
    found = rows(target)
    assert found["path"][:2] == ["000.png", "002.png"]
    assert list(found) == ["path", "label", *(f"probability.{label}" for label in LABELS)]
    same(found, expected, [int(Path(path).stem) for path in found["path"]])
    assert seen == [(64, 150), (128, 150), (150, 150)]


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


def write_csv(path: Path, columns: dict[str, list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.mark.parametrize(("name", "column"), [("picture", "picture"), ("filepath", ()), ("img", ())])
def test_csv_with_paths(
    release: Path,
    folder: Path,
    expected: tuple[list[str], NDArray[np.float32]],
    tmp_path: Path,
    name: str,
    column: str | tuple[str, ...],
) -> None:
    shutil.copytree(folder, tmp_path / "pictures")
    names = [f"pictures/{'inner/' if index % 2 else ''}{index:03}.png" for index in range(150)]
    source = write_csv(tmp_path / "in.csv", {"id": list(range(150)), name: names})
    scoring.score(release, source, tmp_path / "out.csv", column=column)
    found = rows(tmp_path / "out.csv")
    assert found["id"] == [str(index) for index in range(150)]
    assert found[name] == names
    same(found, expected, list(range(150)))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_of_arrays_goes_to_the_model_as_it_is(
    release: Path,
    pixels: NDArray[np.uint8],
    expected: tuple[list[str], NDArray[np.float32]],
    tmp_path: Path,
    suffix: str,
) -> None:
    from slimline import preprocess

    document = json.loads((release / "chain" / "distill" / "preprocess.json").read_text())
    arrays = preprocess.run(document, list(pixels))["image"]
    source = tmp_path / f"in{suffix}"
    if suffix == ".csv":
        write_csv(source, {"id": list(range(150)), "image": [json.dumps(row.tolist()) for row in arrays]})
    else:
        pq.write_table(pa.table({"id": range(150), "image": [row.ravel().tolist() for row in arrays]}), source)
    scoring.score(release, source, tmp_path / "out.parquet")
    found = rows(tmp_path / "out.parquet")
    assert "image" not in found
    same(found, expected, list(range(150)))


def harm(folder: Path) -> None:
    (folder / "inner" / "077.png").write_bytes(b"\x89PNG no image")


def test_a_row_that_cannot_be_read_is_named_and_nothing_is_written(release: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "pictures")
    harm(tmp_path / "pictures")
    (tmp_path / "out.csv").write_text("old")
    with pytest.raises(DataError, match=r"pictures: row 114 \(inner/077\.png\): image 0: can't be decoded"):
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
    source = write_csv(tmp_path / "in.csv", {"image": [ROW] * 70 + [cell] + [ROW] * 9})
    with pytest.raises(InputError, match=said):
        scoring.score(release, source, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "line 1: empty; a header with column names"),
        (b"image,image\n1,2\n", "line 1: column .image. stands there twice"),
        (b"image\n", "no row in it"),
        (b"id,image\n1,a.png\n2\n", "line 3: 1 values, the header has 2"),
        (b"id,image\n1,\xff.png\n", "line 2: not UTF-8"),
        (b'id,image\n1,"a.png\n', "line 2: unexpected end of data"),
        (
            b"id,picture\n1,a.png\n",
            "no column for image, and none called text, .*raw, filepath, filename, image, img; it has id, picture",
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


def test_outputs_without_labels_are_written_as_numbers() -> None:
    answers = Answers({"outputs": [{"name": "price", "shape": ["batch", 1]}, {"name": "box", "shape": ["batch", 2]}]})
    outputs = {"price": np.array([[1.5], [2.5]], np.float32), "box": np.array([[1, 2], [3, 4]], np.float32)}
    found = scoring._scored(answers, outputs)
    assert {name: list(values) for name, values in found.items()} == {
        "price": [1.5, 2.5], "box.0": [1, 3], "box.1": [2, 4],
    }  # fmt: skip


TEXTS = ["the bank", "a goal", "said a new rate"] * 30


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_pairs_are_answered_from_the_kind_of_table_that_they_were_trained_on(
    pair_release: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = [*TEXTS[1:], TEXTS[0]]
    pairs = [list(each) for each in zip(TEXTS, second, strict=True)]
    scoring.score(pair_release, write_rows(tmp_path / "list.jsonl", {"text": pairs}), tmp_path / "list.csv")
    expected = rows(tmp_path / "list.csv")
    trained = write_rows(tmp_path / f"in{suffix}", {"id": list(range(90)), "first": TEXTS, "second": second})
    scoring.score(pair_release, trained, tmp_path / "out.csv")
    other = write_rows(tmp_path / f"other{suffix}", {"b": second, "a": TEXTS})
    named = ["predict", str(pair_release), str(other), str(tmp_path / "named.csv"), "--column", "a", "--column", "b"]
    monkeypatch.setattr(sys, "argv", ["slimline", *named])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    for found in (rows(tmp_path / "out.csv"), rows(tmp_path / "named.csv")):
        assert [found[name] for name in found if name.startswith(("label", "probability"))] == [
            expected[name] for name in expected if name.startswith(("label", "probability"))
        ]
    with pytest.raises(DataError, match=r"none called first, second, text, .*--column, twice for pairs"):
        scoring.score(pair_release, other, tmp_path / "no.csv")
    broken = write_rows(tmp_path / f"broken{suffix}", {"first": TEXTS, "second": [*second[:70], "", *second[71:]]})
    with pytest.raises(DataError, match=rf"broken{suffix}: row 71: column 'second' is empty"):
        scoring.score(pair_release, broken, tmp_path / "no.csv")


def test_a_table_as_german_excel_writes_it_is_answered(text_release: Path, tmp_path: Path) -> None:
    plain = write_rows(tmp_path / "plain.csv", {"id": list(range(90)), "text": TEXTS})
    german = tmp_path / "german.csv"
    german.write_bytes(
        b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\r", b"").replace(b",", b";").replace(b"\n", b"\r\n")
    )
    for source in (plain, german):
        assert scoring.score(text_release, source, tmp_path / f"{source.stem}.out.csv") == 90
    assert (tmp_path / "german.out.csv").read_bytes() == (tmp_path / "plain.out.csv").read_bytes()


def test_more_columns_than_texts_in_a_row_are_refused(text_release: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.csv", {"a": TEXTS, "b": TEXTS})
    with pytest.raises(DataError, match=r"--column: 2 columns, and the model takes 1 a row"):
        scoring.score(text_release, source, tmp_path / "out.csv", column=["a", "b"])


def write_rows(path: Path, columns: dict[str, list[Any]]) -> Path:
    """Write a table as its name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        lines = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([columns, *zip(*columns.values(), strict=True)])
    return path


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


@pytest.mark.parametrize("name", ["images.zip", "images.tar.gz"])
def test_an_archive_of_images(
    release: Path, folder: Path, expected: tuple[list[str], NDArray[np.float32]], tmp_path: Path, name: str
) -> None:
    archive = shutil.make_archive(str(tmp_path / "images"), "zip" if name.endswith("zip") else "gztar", folder)
    assert Path(archive).name == name
    assert scoring.score(release, Path(archive), tmp_path / "out.csv") == 150
    found = rows(tmp_path / "out.csv")
    names = [path.removeprefix("./") for path in found["path"]]
    assert sorted(names) == sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*.png"))
    same(found, expected, [int(Path(path).stem) for path in names])


def test_a_damaged_image_in_an_archive_is_named(release: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "pictures")
    harm(tmp_path / "pictures")
    archive = shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path / "pictures")
    with pytest.raises(DataError, match=r"images\.zip: row \d+ \(inner/077\.png\): image 0: can't be decoded"):
        scoring.score(release, Path(archive), tmp_path / "out.csv")


def test_the_command(
    release: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.csv"
    monkeypatch.setattr(sys, "argv", ["slimline", "predict", str(release), str(folder), str(target)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (f"{target}: 150 rows\n", "")


def test_the_bar_grows_to_the_end_on_a_terminal(release: Path, folder: Path, tmp_path: Path) -> None:
    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "slimline", "predict", str(release), str(folder), str(tmp_path / "out.csv")]
    done = subprocess.run(command, stderr=side, stdout=subprocess.PIPE, text=True, timeout=120)
    os.close(side)
    shown = b""
    with suppress(OSError):  # a terminal without another side
        while part := os.read(terminal, 65_536):
            shown += part
    os.close(terminal)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out.csv'}: 150 rows\n")
    shares = [int(each) for each in re.findall(rb"(\d+)%", shown)]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert len(set(shares)) > 2


MEASURE = """
import resource, sys
from pathlib import Path
from slimline import scoring
assert scoring.score(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])) == int(sys.argv[4])
assert "torch" not in sys.modules
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_file(release: Path, tmp_path: Path) -> None:
    peaks = []
    for count in (4_000, 60_000):
        source = tmp_path / f"{count}.parquet"
        row = pa.table(
            {"image": pa.array(np.random.default_rng(0).random((2_000, 64)).tolist(), pa.list_(pa.float64()))}
        )
        with pq.ParquetWriter(source, row.schema, use_dictionary=False) as writer:
            for _ in range(count // 2_000):
                writer.write_table(row)
        arguments = [sys.executable, "-c", MEASURE, release, source, tmp_path / "out.parquet", str(count)]
        peaks.append(int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout))
    assert (tmp_path / "60000.parquet").stat().st_size > 25 << 20
    assert peaks[1] - peaks[0] < 20, peaks
