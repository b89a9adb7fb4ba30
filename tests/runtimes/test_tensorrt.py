from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slimline import cuda, engines, manifest
from slimline.errors import ArtifactError
from slimline.predictor import Predictor
from slimline.runtimes.tensorrt import TensorRt

without_gpu = pytest.mark.skipif(cuda.capability() is not None, reason="says what happens without a GPU")


def test_a_missing_engine_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model\.engine: missing: add tensorrt to params\.yaml: export\.formats"):
        TensorRt(tmp_path, None)


@without_gpu
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"engine")
    with pytest.raises(ArtifactError, match="no GPU: the CUDA driver"):
        TensorRt(tmp_path, None)


@without_gpu
def test_no_engine_runs_here_without_a_gpu(tmp_path: Path) -> None:
    facts = {"formats": {"tensorrt": {"engine": "model.engine", "compute": [86]}, "onnx-trt": {"file": "m.onnx"}}}
    manifest.write_json(tmp_path / "facts.json", facts)
    assert not engines.run_here(tmp_path)


@pytest.mark.tensorrt
@pytest.mark.skipif(cuda.capability() is None, reason="needs a GPU")
def test_an_engine_answers_like_onnxruntime_on_its_file(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    weight = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    folder = tmp_path / "export"
    with manifest.sealed(folder) as scratch:
        onnx.save(model, scratch / "model.onnx")
        shapes = {"x": ((1, 8), (4, 8), (8, 8))}
        compute = cuda.capability()
        assert compute is not None
        (scratch / "model.engine").write_bytes(engines.Parsed(model.SerializeToString()).build(shapes, [compute]))
        spec = {"dtype": "float32", "shape": ["batch", 8]}
        manifest.write_json(scratch / "signature.json", {"inputs": [{"name": "x", **spec}], "outputs": [{"name": "y"}]})
    rows = np.random.default_rng(1).normal(size=(19, 8)).astype(np.float32)  # more than the profile's largest batch
    found = [Predictor(folder, runtime=name).predict({"x": rows})["y"] for name in ("tensorrt", "onnxruntime")]
    np.testing.assert_allclose(*found, rtol=1e-2, atol=1e-2)
