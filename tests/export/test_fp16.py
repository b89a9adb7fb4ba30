from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor

from slimline import engines
from slimline.export.fp16 import OnnxFp16
from slimline.method import Batches, Context, compress
from slimline.methods.linear import Linear
from slimline.models.cnn import Cnn
from slimline.tasks.digits import Digits

Answer = Callable[[Any, NDArray[np.float32]], NDArray[np.float32]]


@pytest.fixture
def written(cnn: Cnn, task: Digits, tmp_path: Path) -> Any:
    """The cnn in float16."""
    assert OnnxFp16()(cnn.eval(), task.signature(), tmp_path, {})["file"] == "model.fp16.onnx"
    return onnx.load(tmp_path / "model.fp16.onnx")


@torch.no_grad()
def test_it_answers_like_torch_in_half_the_bytes(written: Any, cnn: Cnn, answer: Answer, images: Tensor) -> None:
    expected = cnn.eval()(images).numpy()
    np.testing.assert_allclose(answer(written, images.numpy()), expected, atol=5e-3 * np.abs(expected).max())
    weights = [each for each in written.graph.initializer if len(each.dims) > 1]
    assert len(weights) == 4
    assert {each.data_type for each in weights} == {TensorProto.FLOAT16}
    outer = [*written.graph.input, *written.graph.output]
    assert {value.type.tensor_type.elem_type for value in outer} == {TensorProto.FLOAT}


def test_quantizers_are_left_out(
    cnn: Cnn, batches: Batches, context: Callable[..., Context], task: Digits, tmp_path: Path
) -> None:
    quantized, _ = compress(Linear(), cnn, batches, context())
    OnnxFp16()(quantized.eval(), task.signature(), tmp_path, {})
    found = onnx.load(tmp_path / "model.fp16.onnx")
    assert "QuantizeLinear" not in {node.op_type for node in found.graph.node}


@pytest.mark.tensorrt
def test_the_real_parser_accepts_it(written: Any) -> None:
    assert engines.Parsed(written.SerializeToString()).errors == []
