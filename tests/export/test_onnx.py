from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from slimline.errors import ExportError
from slimline.export import onnx as writer
from slimline.export.onnx import OPSET, export, to_onnx
from slimline.export.qdq import check
from slimline.models.cnn import Cnn
from slimline.tasks.digits import Digits

Exported = Callable[[str], tuple[nn.Module, Any]]
Answer = Callable[[Any, NDArray[np.float32]], NDArray[np.float32]]


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("float", 1e-5), ("symmetric", 0.03), ("linear", 0.03)],
    ids=["float", "symmetric", "linear"],
)
@torch.no_grad()
def test_the_runtime_answers_like_torch(
    exported: Exported, answer: Answer, images: Tensor, kind: str, tolerance: float
) -> None:
    model, graph = exported(kind)
    expected = model(images).numpy()
    found = answer(graph, images.numpy())
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.95


@pytest.mark.parametrize("kind", ["float", "linear"])
def test_the_batch_is_dynamic(exported: Exported, answer: Answer, images: Tensor, kind: str) -> None:
    _, graph = exported(kind)
    whole = answer(graph, images.numpy())
    for rows in (1, 3, 40):
        np.testing.assert_allclose(answer(graph, images[:rows].numpy()), whole[:rows], rtol=1e-4, atol=1e-4)
    axis = graph.graph.input[0].type.tensor_type.shape.dim[0]
    assert axis.dim_param


def test_names_are_the_signatures(exported: Exported, task: Digits) -> None:
    _, graph = exported("float")
    signature = task.signature()
    assert [value.name for value in graph.graph.input] == [spec["name"] for spec in signature["inputs"]]
    assert [value.name for value in graph.graph.output] == [spec["name"] for spec in signature["outputs"]]
    assert [(each.domain, each.version) for each in graph.opset_import if not each.domain] == [("", OPSET)]


def test_export_writes_the_file_with_its_metadata(cnn: Cnn, task: Digits, tmp_path: Path) -> None:
    export(cnn, task.signature(), tmp_path, {"slimline.stage": "teacher", "slimline.task": "digits"})
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    found = onnx.load(tmp_path / "model.onnx")
    assert {each.key: each.value for each in found.metadata_props} == {
        "slimline.stage": "teacher",
        "slimline.task": "digits",
    }
    onnx.checker.check_model(found)


def test_a_large_model_written_in_parts_is_the_same_model(
    exported: Exported, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "WHOLE", 0)
    _, graph = exported("linear")
    expected = graph.SerializeToString()
    apart = onnx.ModelProto.FromString(expected)
    writer.save(apart, tmp_path / "model.onnx", {"key": "value"})
    assert not apart.graph.initializer
    found = onnx.load(tmp_path / "model.onnx")
    assert found.metadata_props.pop().value == "value"
    assert found.SerializeToString() == expected
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    feed = {session.get_inputs()[0].name: images.numpy()}
    np.testing.assert_array_equal(session.run(None, feed)[0], onnxruntime.InferenceSession(expected).run(None, feed)[0])


def test_a_large_initializer_is_checked_by_its_shape() -> None:
    weight = numpy_helper.from_array(np.zeros((200, 200), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, 1, ["batch", size]) for name, size in (("x", 200), ("y", 200))]
    model = helper.make_model(
        helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight]),
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10,
    )  # fmt: skip
    check(model)
    model.graph.initializer[0].dims[:] = [100, 400]
    with pytest.raises(Exception, match=r"(?i)incompatible dimensions"):
        check(model)


def test_exporting_is_repeatable(cnn: Cnn, task: Digits) -> None:
    signature = task.signature()
    assert to_onnx(cnn, signature).SerializeToString() == to_onnx(cnn, signature).SerializeToString()


def test_exporting_leaves_the_model_as_it_was(cnn: Cnn, task: Digits) -> None:
    cnn.train()
    to_onnx(cnn, task.signature())
    assert cnn.training
    assert all(parameter.requires_grad for parameter in cnn.parameters())


class Unexportable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("not today")


def test_a_model_that_cannot_be_exported_is_an_error_of_one_line(task: Digits) -> None:
    with pytest.raises(ExportError, match="torch can't export this model to ONNX") as caught:
        to_onnx(Unexportable(), task.signature())
    assert "\n" not in str(caught.value)
