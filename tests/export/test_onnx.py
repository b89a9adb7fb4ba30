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

from slimline.decisions import Decisions
from slimline.errors import ExportError
from slimline.export import onnx as writer
from slimline.export.graph import check
from slimline.export.onnx import OPSET, export, to_onnx
from slimline.method import Context, compress
from slimline.methods.linear import Linear
from slimline.models.cnn import Cnn
from slimline.params import Target
from slimline.pruning.channels import groups, keep_channels, slice_model
from slimline.task import Split, call
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
    writer.save(apart, {}, tmp_path / "model.onnx", {"key": "value"})
    assert not apart.graph.initializer
    found = onnx.load(tmp_path / "model.onnx")
    assert found.metadata_props.pop().value == "value"
    assert found.SerializeToString() == expected
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    feed = {session.get_inputs()[0].name: images.numpy()}
    np.testing.assert_array_equal(session.run(None, feed)[0], onnxruntime.InferenceSession(expected).run(None, feed)[0])


def test_parts_hold_numbers_of_every_size_and_those_that_are_not_raw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "WHOLE", 0)
    values = [np.arange(size, dtype=np.int8) for size in (0, 1, 127, 128, 16384, 70000)]
    held = [numpy_helper.from_array(value, f"raw{len(value)}") for value in values]
    held.append(helper.make_tensor("listed", onnx.TensorProto.FLOAT, [2], [0.5, 2.0]))
    held.append(helper.make_tensor("words", onnx.TensorProto.STRING, [1], [b"text"]))
    graph = helper.make_model(helper.make_graph([], "parts", [], [], held))
    expected = graph.SerializeToString()
    writer.save(graph, {}, tmp_path / "model.onnx", {})
    assert onnx.load(tmp_path / "model.onnx").SerializeToString() == expected


@pytest.mark.parametrize("spare", [0, 100], ids=["numbers alone", "with the nodes"])
def test_a_file_that_no_parser_opens_is_an_error(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    _, graph = exported("linear")
    apart = onnx.ModelProto.FromString(graph.SerializeToString())
    monkeypatch.setattr(writer, "WHOLE", 0)
    monkeypatch.setattr(writer, "LIMIT", sum(len(each.raw_data) for each in apart.graph.initializer) + spare)
    with pytest.raises(
        ExportError, match=r"^model.onnx of stage 'teacher' would have [\d,]+ bytes, an ONNX file"
    ) as said:
        writer.save(apart, {}, tmp_path / "model.onnx", {"slimline.stage": "teacher"})
    assert "\n" not in str(said.value)
    assert not list(tmp_path.iterdir())


def test_no_pass_can_write_into_the_models_weights(task: Digits) -> None:
    """Large ones aren't copied, and a pass that wrote into one changed the model."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10)).eval()
    before = model[1].weight.detach().clone()

    def careless(graph: Any) -> Any:
        for value in graph.constants.values():
            if value.size == before.numel():
                with pytest.raises(ValueError, match="read-only"):
                    value[:] = 0
        return graph.finish()

    assert to_onnx(model, task.signature(), careless).graph.initializer
    assert torch.equal(model[1].weight, before)


@pytest.mark.parametrize("whole", [0, 2**30], ids=["in parts", "whole"])
def test_a_large_weight_is_written_from_where_it_lies(
    task: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    monkeypatch.setattr(writer, "WHOLE", whole)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10)).eval()
    graph, arrays = writer.in_parts(model, task.signature())
    assert graph.ByteSize() < sum(each.nbytes for each in arrays.values()) == 4 * 64 * 512
    assert all(np.shares_memory(each, model[1].weight.detach().numpy()) for each in arrays.values())
    writer.save(graph, arrays, tmp_path / "model.onnx", {})
    assert onnx.load(tmp_path / "model.onnx") == to_onnx(model, task.signature())


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


class ChannelNorm(nn.LayerNorm):
    """A LayerNorm over the channels of images, as ConvNeXt has it (Liu et al. 2022, arXiv:2201.03545)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Sequence(nn.Module):
    """Reads channels as a sequence, as efficient channel attention does (Wang et al. 2020, arXiv:1910.03151)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x.reshape(x.shape[0], 1, x.shape[1])).reshape(x.shape[0], -1)


@pytest.mark.parametrize(
    ("middle", "pooled", "flat"),
    [(ChannelNorm(8), nn.Flatten(), 1), (nn.Identity(), Sequence(), 0)],
    ids=["channels last", "sequence"],
)
def test_what_is_pooled_is_read_as_it_is_written(
    middle: nn.Module, pooled: nn.Module, flat: int, task: Digits, answer: Answer, images: Tensor
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), middle, nn.AdaptiveAvgPool2d(1), pooled, nn.Linear(8, 10)).eval()
    graph = to_onnx(model, task.signature())
    found = answer(graph, images[:5].numpy())
    with torch.inference_mode():
        np.testing.assert_allclose(found, model(images[:5]).numpy(), rtol=1e-4, atol=1e-5)
    operators = [node.op_type for node in graph.graph.node]
    assert operators.count("Flatten") == flat
    assert operators.count("GlobalAveragePool") == 1
    assert "Gather" not in operators


class Reversed(nn.Module):
    """Two inputs, in another order than the signature's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(5, 8)
        self.last = nn.Linear(8, 2)

    def forward(self, wide: Tensor, narrow: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(narrow) - self.second(wide)))  # type: ignore[no-any-return]


class Keyed(Reversed):
    """The same as a dict."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(batch["wide"], batch["narrow"])


@pytest.mark.parametrize("kind", [Reversed, Keyed])
def test_several_inputs_go_by_name_or_as_a_dict(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    inputs = {"narrow": torch.randn(6, 3), "wide": torch.randn(6, 5)}
    model: nn.Module = kind().eval()
    rows = (inputs, torch.arange(6) % 2)

    def batches() -> list[Any]:
        return [rows]

    specs = [{"name": name, "dtype": "float32", "shape": ["batch", each.shape[1]]} for name, each in inputs.items()]
    signature = {"inputs": specs, "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 2]}]}
    (group,) = [each for each in groups(model, inputs, 2) if ("last", "in") in {m[:2] for m in each.members}]
    smaller = slice_model(model, keep_channels([group], [torch.arange(8.0)], [4]))
    split = Split({name: each.numpy() for name, each in inputs.items()}, rows[1].numpy())
    context = Context(Digits(), split, split, Target(), Decisions(None, {}))
    quantized, _ = compress(Linear(), smaller, batches, context)
    session = onnxruntime.InferenceSession(to_onnx(quantized, signature).SerializeToString())
    (found,) = session.run(None, {name: each.numpy() for name, each in inputs.items()})
    with torch.inference_mode():
        np.testing.assert_allclose(found, call(quantized.eval(), inputs).numpy(), atol=0.02)
    assert quantized.get_submodule("first").out_features == 4
