"""Images from folders, archives and tables, and the arrays that stand for them: the Predictor's answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from slimline import preprocess, scoring
from tests.scoring.tables import LABELS, rows, same, write_rows


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
    source = write_rows(tmp_path / "in.csv", {"id": list(range(150)), name: names})
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
    document = json.loads((release / "chain" / "distill" / "preprocess.json").read_text())
    arrays = preprocess.run(document, list(pixels))["image"]
    source = tmp_path / f"in{suffix}"
    if suffix == ".csv":
        write_rows(source, {"id": list(range(150)), "image": [json.dumps(row.tolist()) for row in arrays]})
    else:
        pq.write_table(pa.table({"id": range(150), "image": [row.ravel().tolist() for row in arrays]}), source)
    scoring.score(release, source, tmp_path / "out.parquet")
    found = rows(tmp_path / "out.parquet")
    assert "image" not in found
    same(found, expected, list(range(150)))


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
