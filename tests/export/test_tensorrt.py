from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from torch import nn

from slimline import engines
from slimline.errors import ExportError
from slimline.export import formats
from slimline.export.tensorrt import TensorRt, profile
from slimline.models.cnn import Cnn
from slimline.tasks.digits import Digits

ForTensorRt = Callable[[str], tuple[nn.Module, Path]]


def signature(*shape: str | int) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "dtype": "float32", "shape": list(shape)}], "outputs": []}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([1, 8, 32], (1, 8, 32)), ([32, 1, 8], (1, 8, 32)), ([4], (1, 4, 4)), ([1, 16], (1, 16, 16))],
    ids=str,
)
def test_the_batch_goes_from_1_over_the_middle_to_the_largest(sizes: list[int], expected: tuple[int, ...]) -> None:
    assert profile(signature("batch", 3, 8), sizes) == {"x": tuple((size, 3, 8) for size in expected)}


def test_other_named_axes_take_their_range_from_axes() -> None:
    with pytest.raises(ExportError, match=r"input 'x': TensorRT needs a range for axis 'length': add axes: \{length"):
        profile(signature("batch", "length"), [8])
    assert profile(signature("batch", "length"), [8], {"length": [1, 64, 128]}) == {"x": ((1, 1), (8, 64), (8, 128))}


def test_without_tensorrt_one_line_names_the_extra(
    cnn: Cnn, task: Digits, for_tensorrt: ForTensorRt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.trt.onnx").write_bytes(for_tensorrt("cnn-linear")[1].read_bytes())
    monkeypatch.setattr(engines, "_names", list)
    with pytest.raises(ExportError, match=r"slimline\[tensorrt\]"):
        TensorRt()(cnn, task.signature(), tmp_path, {})


@pytest.mark.tensorrt
def test_an_engine_and_its_source_are_written_with_facts(cnn: Cnn, task: Digits, tmp_path: Path) -> None:
    facts = TensorRt(compute=[86, 89], batch_sizes=[1, 4, 16])(cnn.eval(), task.signature(), tmp_path, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.engine", "model.trt.onnx"]
    assert facts["file"] == "model.trt.onnx", "it was made here, so it is measured"
    assert facts["compute"] == [86, 89]
    assert facts["profile"] == {"image": [[1, 1, 8, 8], [4, 1, 8, 8], [16, 1, 8, 8]]}
    assert facts["library"].startswith("tensorrt-rtx 1.")
    shown = formats.describe({"status": "built", "bytes": 5, **facts}, task.primary)
    assert shown == f"5 bytes, by {facts['library']} for SM 86, 89: built, not run"


@pytest.mark.tensorrt
def test_the_file_of_onnx_trt_is_taken_as_it_is(
    cnn: Cnn, task: Digits, for_tensorrt: ForTensorRt, tmp_path: Path
) -> None:
    given = for_tensorrt("resnet-fp16")[1].read_bytes()
    (tmp_path / "model.trt.onnx").write_bytes(given)
    facts = TensorRt(compute=[120], batch_sizes=[1])(cnn, task.signature(), tmp_path, {})
    assert (tmp_path / "model.trt.onnx").read_bytes() == given
    assert "file" not in facts


@pytest.mark.tensorrt
def test_a_model_that_the_parser_rejects_is_an_error(
    cnn: Cnn, task: Digits, for_tensorrt: ForTensorRt, tmp_path: Path
) -> None:
    """An engine from ONNX Runtime's file, say."""
    graph = onnx.load(for_tensorrt("cnn-linear")[1])
    graph.graph.node[0].op_type = "Det"
    onnx.save(graph, tmp_path / "model.trt.onnx")
    with pytest.raises(ExportError, match="TensorRT rejects the model"):
        TensorRt()(cnn, task.signature(), tmp_path, {})
    assert not (tmp_path / "model.engine").exists()
