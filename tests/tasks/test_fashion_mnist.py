from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from slimline.errors import DataError
from slimline.task import SPLITS
from slimline.tasks.fashion_mnist import IDX, FashionMnist, read_arrays, read_idx


def idx(array: NDArray[np.uint8]) -> bytes:
    """Encode unsigned bytes as an idx file, not compressed."""
    return b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with the four idx.gz files, 40 training and 10 test images."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 10)):
        images, labels = IDX[part]
        (tmp_path / images).write_bytes(gzip.compress(idx(rng.integers(0, 256, (count, 28, 28), np.uint8))))
        (tmp_path / labels).write_bytes(gzip.compress(idx((np.arange(count) % 10).astype(np.uint8))))
    return tmp_path


@pytest.fixture(scope="module")
def bundled(project: Path) -> FashionMnist:
    """The task on the bundled data, read from the repository's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        task = FashionMnist()
        task.splits()
    return task


def test_bundled_splits_are_disjoint_and_complete(bundled: FashionMnist) -> None:
    splits = bundled.splits()
    assert tuple(splits) == SPLITS
    assert len(splits["validation"]) == 1500
    assert len(splits["calibration"]) == 500
    train = [{image.tobytes() for image in splits[name].inputs["image"]} for name in SPLITS[:3]]
    assert not train[0] & train[1]
    assert not train[0] & train[2]
    assert not train[1] & train[2]


def test_bundled_classes_are_balanced(bundled: FashionMnist) -> None:
    for name in ("validation", "calibration"):
        counts = np.bincount(bundled.splits()[name].targets, minlength=10)
        assert counts.max() - counts.min() <= 0.1 * counts.mean()


def test_idx_files_are_read_from_a_source_folder(source: Path) -> None:
    splits = FashionMnist(str(source), validation=10, calibration=10).splits()
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 20, "validation": 10, "calibration": 10, "test": 10,
    }  # fmt: skip
    assert splits["test"].inputs["image"].shape == (10, 1, 28, 28)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=3))
@settings(max_examples=30)
def test_read_idx_reads_what_was_written(tmp_path_factory: pytest.TempPathFactory, shape: list[int]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    path = tmp_path_factory.mktemp("idx") / "x.gz"
    path.write_bytes(gzip.compress(idx(array)))
    np.testing.assert_array_equal(read_idx(path), array)


WHOLE = idx(np.arange(48, dtype=np.uint8).reshape(3, 4, 4))
SQUEEZED = gzip.compress(WHOLE)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(SQUEEZED[:-20], "truncated or damaged", id="truncated gzip"),
        pytest.param(
            SQUEEZED[:12] + bytes([SQUEEZED[12] ^ 0xFF]) + SQUEEZED[13:], "truncated or damaged", id="flipped byte"
        ),
        pytest.param(b"", "not an idx file", id="empty"),
        pytest.param(WHOLE, "truncated or damaged", id="not compressed"),
        pytest.param(gzip.compress(WHOLE[:-1]), "truncated: 47 values, its header says 48", id="missing value"),
        pytest.param(gzip.compress(WHOLE + b"x"), "49 values, its header says 48", id="a value too many"),
        pytest.param(gzip.compress(WHOLE[:6]), "not an idx file", id="half a header"),
        pytest.param(gzip.compress(b"\x00\x00\x0d" + WHOLE[3:]), "not an idx file of unsigned bytes", id="floats"),
        pytest.param(gzip.compress(b"text"), "not an idx file", id="text"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "x.gz").write_bytes(raw)
    with pytest.raises(DataError) as caught:
        read_idx(tmp_path / "x.gz")
    assert str(caught.value).startswith(f"{tmp_path / 'x.gz'}: ")
    assert message in str(caught.value)


def test_a_missing_idx_file_says_which_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.gz: not found; .* train-images-idx3-ubyte.gz"):
        read_idx(tmp_path / "x.gz")


def damaged_zip(tmp_path: Path, change: str) -> bytes:
    path = tmp_path / "good.npz"
    np.savez_compressed(path, images=np.arange(4000, dtype=np.uint8).reshape(5, 800), labels=np.zeros(5, np.uint8))
    raw = path.read_bytes()
    middle = 100
    return {
        "truncated": raw[:-50],
        "flipped": raw[:middle] + bytes(each ^ 0xFF for each in raw[middle : middle + 8]) + raw[middle + 8 :],
        "text": b"no archive",
        "empty": b"",
    }[change]


@pytest.mark.parametrize("change", ["truncated", "flipped", "text", "empty"])
def test_a_damaged_npz_file_is_named(tmp_path: Path, change: str) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(damaged_zip(tmp_path, change))
    with pytest.raises(DataError, match="truncated or damaged") as caught:
        read_arrays(path)
    assert f"git checkout -- {path}" in str(caught.value)


def test_an_npz_without_the_arrays_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", pictures=np.zeros(3))
    with pytest.raises(DataError, match=r"x.npz: truncated or damaged"):
        read_arrays(tmp_path / "x.npz")


def test_a_missing_npz_points_at_the_source_argument(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.npz: not found; params.yaml: task.args.source"):
        read_arrays(tmp_path / "x.npz")


def test_images_and_labels_must_be_as_many(source: Path) -> None:
    (source / IDX["train"][1]).write_bytes(gzip.compress(idx(np.zeros(39, np.uint8))))
    with pytest.raises(DataError, match="train: 40 images but 39 labels"):
        FashionMnist(str(source)).splits()


def test_images_must_be_28_by_28(source: Path) -> None:
    (source / IDX["test"][0]).write_bytes(gzip.compress(idx(np.zeros((10, 8, 8), np.uint8))))
    with pytest.raises(DataError, match=r"test: images are \(8, 8\), expected \(28, 28\)"):
        FashionMnist(str(source)).splits()
