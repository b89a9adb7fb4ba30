from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimline import manifest
from slimline.errors import ArtifactError, InputError, PluginError
from slimline.export.onnx import export
from slimline.models.cnn import Cnn
from slimline.predictor import Predictor
from slimline.tasks.digits import Digits


@pytest.fixture(scope="module")
def directory(_trained_cnn: Cnn, task: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed export of the trained net."""
    target = tmp_path_factory.mktemp("exports") / "teacher"
    with manifest.sealed(target) as scratch:
        export(_trained_cnn, task.signature(), scratch, {})
        manifest.write_json(scratch / "signature.json", task.signature())
        manifest.write_json(scratch / "preprocess.json", task.preprocess())
    return target


@pytest.fixture(scope="module")
def predictor(directory: Path) -> Iterator[Predictor]:
    made = Predictor(directory, threads=1)
    yield made
    made.close()


def rows(count: int = 2) -> NDArray[np.float32]:
    return np.zeros((count, 1, 8, 8), np.float32)


def test_answers_are_torchs(predictor: Predictor, cnn: Cnn, images: Tensor) -> None:
    with torch.inference_mode():
        expected = cnn.eval()(images).numpy()
    found = predictor.predict({"image": images.numpy()})
    assert list(found) == ["logits"]
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-4, atol=1e-4)


def test_signature_and_revision(predictor: Predictor, directory: Path, task: Digits) -> None:
    assert predictor.signature == task.signature()
    assert predictor.revision == manifest.digest(directory)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        pytest.param({}, "input 'image' is missing", id="missing"),
        pytest.param({"images": rows()}, "input 'images' is unknown; the model takes image", id="unknown"),
        pytest.param({"image": rows(), "mask": rows()}, "input 'mask' is unknown", id="one too many"),
        pytest.param({"image": rows().tolist()}, "input 'image': expected an array, found list", id="list"),
        pytest.param(
            {"image": rows().astype(np.float64)}, "input 'image': dtype float64, expected float32", id="dtype"
        ),
        pytest.param({"image": rows().astype(np.uint8)}, "input 'image': dtype uint8, expected float32", id="pixels"),
        pytest.param({"image": rows().astype(">f4")}, "input 'image': dtype >f4, expected float32", id="byte order"),
        pytest.param({"image": rows()[:, 0]}, "input 'image': 3 axes, expected 4", id="axes"),
        pytest.param(
            {"image": rows().reshape(2, 1, 4, 16)}, "input 'image': shape [2, 1, 4, 16], expected", id="shape"
        ),
        pytest.param({"image": rows(0)}, "input 'image': empty, shape [0, 1, 8, 8]", id="empty"),
        pytest.param({"image": rows() * np.float32("nan")}, "input 'image': holds NaN or infinity", id="NaN"),
        pytest.param({"image": rows() + np.float32("inf")}, "input 'image': holds NaN or infinity", id="infinity"),
    ],
)
def test_a_wrong_input_is_named(predictor: Predictor, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        predictor.predict(inputs)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("odd", [-1, 97, 99_999_999])
def test_a_number_out_of_range_is_named(text_release: Path, odd: int) -> None:
    """The model itself takes -1 for its last row, and fails on the others."""
    predictor = Predictor(text_release, threads=1)
    with pytest.raises(InputError, match=rf"^input 'input_ids': holds {odd}, expected numbers from 0 to 88$"):
        predictor.predict({"input_ids": np.array([[2, 3], [2, odd]])})


def test_several_inputs_must_agree_on_a_named_axis(predictor: Predictor) -> None:
    two = {"inputs": [{"name": name, "dtype": "float32", "shape": ["batch"]} for name in ("a", "b")]}
    other = object.__new__(Predictor)
    other.signature = two
    other.check({"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)})
    with pytest.raises(InputError, match=r"input 'b': shape \[3\], expected \['batch'\]"):
        other.check({"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)})


def copied(directory: Path, target: Path, change: Callable[[Path], None], *, reseal: bool) -> Path:
    with manifest.sealed(target) as scratch:
        for path in directory.iterdir():
            (scratch / path.name).write_bytes(path.read_bytes())
        if reseal:
            change(scratch)
    if not reseal:
        change(target)
    return target


def cut_model(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:200])


def test_a_damaged_file_is_named(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model.onnx: 200 bytes, manifest.json says"):
        Predictor(copied(directory, tmp_path / "x", cut_model, reseal=False))


def test_a_model_that_the_runtime_cannot_load_is_one_line(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model.onnx: ONNX Runtime can't load it") as caught:
        Predictor(copied(directory, tmp_path / "x", cut_model, reseal=True))
    assert "\n" not in str(caught.value)


def test_a_release_answers_with_its_last_stage(directory: Path, tmp_path: Path) -> None:
    with manifest.sealed(tmp_path / "release") as scratch:
        copied(directory, scratch / "chain" / "quantize", lambda _: None, reseal=False)
        manifest.write_json(scratch / "card.json", {"format": 1, "last": "quantize"})
    predictor = Predictor(tmp_path / "release", threads=1)
    assert predictor.revision == manifest.digest(tmp_path / "release")
    assert predictor.predict({"image": rows()})["logits"].shape == (2, 10)


def test_an_unknown_runtime_is_named(directory: Path) -> None:
    with pytest.raises(PluginError, match=r"no plug-in 'onnxruntim' among slimline.runtimes"):
        Predictor(directory, runtime="onnxruntim")


def test_predicting_needs_no_torch(directory: Path) -> None:
    code = (
        "import sys, numpy as np; from slimline.predictor import Predictor\n"
        "predictor = Predictor(sys.argv[1], threads=1)\n"
        "assert predictor.predict({'image': np.zeros((1, 1, 8, 8), np.float32)})['logits'].shape == (1, 10)\n"
        "heavy = {'torch', 'onnx', 'sklearn', 'accelerate'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(directory)], check=True)
