"""Where a call's time goes: every kind of operator of the model, by what the runtime's profiler says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two large products with a small addition between them."""
    weights = np.ones((256, 256), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Sin", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 256])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_every_kind_of_operator_has_its_share(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import operators

    batches = [{"x": np.ones((rows, 256), np.float32)} for rows in (64, 128)]
    monkeypatch.setattr(operators, "LEAST", 0.0)
    found = operators.microseconds(model, batches, 1)
    assert list(found) == ["MatMul", "Sin", "others"]
    assert found["MatMul"] > found["Sin"] > 0
    assert found["others"] == 0
    assert not list(Path().glob("*profile*.json"))


def test_what_takes_little_is_counted_together(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import operators

    monkeypatch.setattr(operators, "LEAST", 1.0)
    found = operators.microseconds(model, [{"x": np.ones((8, 256), np.float32)}], 1)
    assert list(found) == ["others"]
    assert found["others"] > 0
