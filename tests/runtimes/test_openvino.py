from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino", reason="needs the extra openvino")

from slimline import benchmark, runtime_choice
from slimline.errors import ArtifactError
from slimline.export.onnx import export
from slimline.models.cnn import Cnn
from slimline.runtimes.onnxruntime import OnnxRuntime
from slimline.runtimes.openvino import OpenVino, OpenVinoBf16
from slimline.tasks.digits import Digits

KINDS = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "openvino-bf16": OpenVinoBf16}


@pytest.fixture
def directory(cnn: Cnn, task: Digits, tmp_path: Path) -> Path:
    export(cnn, task.signature(), tmp_path, {})
    return tmp_path


def test_it_answers_as_onnx_runtime_does(directory: Path) -> None:
    image = np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)
    expected = OnnxRuntime(directory, 1).run({"image": image})["logits"]
    runtime = OpenVino(directory, 1)
    np.testing.assert_allclose(runtime.run({"image": image})["logits"], expected, atol=1e-4)
    assert runtime.run({"image": image[:2]})["logits"].shape == (2, 10)  # another batch size
    runtime.close()


def test_answers_are_the_callers_own(directory: Path) -> None:
    rng = np.random.default_rng(0)
    runtime = OpenVino(directory, 1)
    first = runtime.run({"image": rng.random((1, 1, 8, 8), dtype=np.float32)})["logits"]
    kept = first.copy()
    runtime.run({"image": rng.random((1, 1, 8, 8), dtype=np.float32)})
    np.testing.assert_array_equal(first, kept)


def test_its_precision_is_what_it_says_not_what_the_processor_offers(directory: Path) -> None:
    import openvino

    can = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert can or "avx512_bf16" not in benchmark.machine()["instructions"]
    found = {name: runtime_choice.precision(kind(directory, 1)) for name, kind in KINDS.items()}
    assert found["onnxruntime"] == {}
    assert found["openvino"] == {"precision": "f32"}
    assert found["openvino-bf16"] == {"precision": "bf16" if can else "f32"}
    assert runtime_choice.distinct([*KINDS], found) == [*KINDS][: 3 if can else 2]


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ArtifactError, match=r"model.onnx: OpenVINO can't load it") as caught:
        OpenVino(tmp_path, 1)
    assert "\n" not in str(caught.value)
