from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline import artifact
from slimline.artifact import Artifact
from slimline.errors import MethodError
from slimline.export import facts
from slimline.export import onnx as exporter
from slimline.export.fp16 import OnnxFp16
from slimline.export.onnx_trt import OnnxTrt
from slimline.method import Batches, Context, compress
from slimline.methods.bfloat16 import BFloat16
from slimline.methods.float16 import Float16
from slimline.methods.linear import Linear
from slimline.methods.magnitude import Magnitude
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.quantization.float_weights import FloatWeights
from slimline.quantization.grids import FLOATS, Spec, spec_data, spec_of
from slimline.quantization.keys import Override
from slimline.quantization.quantizers import Quantizer, quantizers
from slimline.tasks.digits import Digits

Made = Callable[..., Context]
Answer = Callable[[Any, NDArray[np.float32]], NDArray[np.float32]]
BOTH = pytest.mark.parametrize("method", [Float16(), BFloat16()], ids=["float16", "bfloat16"])


def weights(model: nn.Module) -> dict[str, Tensor]:
    kinds = (nn.Conv2d, nn.Linear)
    return {name: each.weight.detach() for name, each in model.named_modules() if isinstance(each, kinds)}


@given(st.floats(-60000, 60000, width=32), st.sampled_from(["float16", "bfloat16"]))
def test_a_value_becomes_the_nearest_of_its_format(number: float, scheme: Any) -> None:
    x = torch.tensor(number)
    found = Quantizer(Spec(16, scheme))(x)
    assert found.dtype == torch.float32
    assert found == x.to(FLOATS[scheme]).float()
    relative, below = (2.0**-11, 2.0**-25) if scheme == "float16" else (2.0**-8, 2.0**-133)
    assert abs(float(found) - number) <= max(relative * abs(number), below) * 1.0001


@BOTH
def test_gradients_pass_straight_through(method: FloatWeights) -> None:
    x = torch.randn(5, requires_grad=True)
    Quantizer(Spec(16, method.scheme))(x).sum().backward()
    assert x.grad is not None
    assert (x.grad == 1).all()
    assert spec_of(spec_data(Spec(16, method.scheme))) == Spec(16, method.scheme)


@BOTH
@torch.no_grad()
def test_the_artifact_holds_rounded_weights_and_answers_alike(
    resnet: ResNet, batches: Batches, context: Made, images: Tensor, method: FloatWeights, tmp_path: Path, task: Digits,
    described: dict[str, Artifact],
) -> None:  # fmt: skip
    expected = resnet(images)
    model, plan = compress(method, resnet, batches, context())
    for name, weight in weights(model.eval()).items():
        assert torch.equal(weight.to(FLOATS[method.scheme]).float(), weight), name
    error = (model(images) - expected).abs().max() / expected.abs().max()
    assert 0 < error < (0.003 if method.name == "float16" else 0.03)
    named = described["resnet"]
    artifact.save(tmp_path / "a", model, Artifact(named.task, named.model, [plan.edit], "quantize"))
    assert torch.equal(artifact.load(tmp_path / "a", task=task)[0](images), model(images))


@BOTH
def test_weights_stay_in_their_format_through_training(
    cnn: Cnn, batches: Batches, context: Made, images: Tensor, method: FloatWeights
) -> None:
    model, _ = compress(method, cnn, batches, context())
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
    assert not torch.equal(model.get_submodule("3").get_parameter("weight"), before["3.weight"])
    with torch.no_grad():
        found = model.eval()(images)
        for weight in weights(model).values():
            weight.copy_(weight.to(FLOATS[method.scheme]).float())
        assert torch.equal(model(images), found)


@BOTH
@torch.no_grad()
def test_onnx_runtime_runs_half_of_the_bytes(
    resnet: ResNet, batches: Batches, context: Made, images: Tensor, task: Digits, method: FloatWeights, tmp_path: Path,
    answer: Answer,
) -> None:  # fmt: skip
    model, _ = compress(method, resnet, batches, context())
    whole, _ = compress(Linear(activation_bits=32), resnet, batches, context())
    exporter.export(model.eval(), task.signature(), tmp_path, {})
    graph = onnx.load(tmp_path / "model.onnx")
    kind = onnx.TensorProto.FLOAT16 if method.name == "float16" else onnx.TensorProto.BFLOAT16
    stored = [each for each in graph.graph.initializer if each.data_type == kind]
    assert len(stored) == len(weights(model))
    assert {node.op_type for node in graph.graph.node} <= {
        "Conv",
        "Relu",
        "Add",
        "Cast",
        "Gemm",
        "GlobalAveragePool",
        "Flatten",
    }
    assert [each.domain for each in graph.opset_import] == [""]
    values = sum(weight.numel() for weight in weights(whole).values())
    assert 2 * values < (tmp_path / "model.onnx").stat().st_size < 3 * values
    np.testing.assert_allclose(answer(graph, images.numpy()), model(images).numpy(), rtol=0, atol=1e-4)


@BOTH
@torch.no_grad()
def test_other_formats_keep_the_weights(
    cnn: Cnn, batches: Batches, context: Made, images: Tensor, task: Digits, method: FloatWeights, tmp_path: Path,
    answer: Answer,
) -> None:  # fmt: skip
    model, _ = compress(method, cnn, batches, context())
    made = OnnxTrt()(model.eval(), task.signature(), tmp_path, {})
    assert made["requantized"] == 0
    graph = onnx.load(tmp_path / "model.trt.onnx")
    assert not {node.op_type for node in graph.graph.node} & {"QuantizeLinear", "Cast"}
    expected = model(images).numpy()
    np.testing.assert_allclose(answer(graph, images.numpy()), expected, rtol=0, atol=1e-4)
    OnnxTrt(fp16=True)(model, task.signature(), tmp_path, {})
    OnnxFp16()(model, task.signature(), tmp_path, {})
    for name in ("model.trt.onnx", "model.fp16.onnx"):
        found = answer(onnx.load(tmp_path / name), images.numpy())
        assert np.abs(found - expected).max() < 0.02 * expected.std(), name


def test_integer_grids_give_way_and_take_over_again(cnn: Cnn, batches: Batches, context: Made) -> None:
    integers, _ = compress(Linear(), cnn, batches, context())
    floats, _ = compress(Float16(), integers, batches, context())
    weighted = {name: each.spec for name, each in quantizers(floats).items() if name.endswith("weight_quantizer")}
    assert set(weighted.values()) == {Spec(16, "float16")}
    assert not [
        name for name in quantizers(floats) if name.partition(".")[0] in {"0", "3", "6", "11"} and "input" in name
    ]
    again, _ = compress(Linear(), floats, batches, context())
    assert {each.spec.bits for each in quantizers(again).values()} == {8}


def test_skipped_layers_stay_as_they_are(cnn: Cnn, batches: Batches, context: Made) -> None:
    model, plan = compress(Float16(skip=["11"]), cnn, batches, context())
    assert {name.partition(".")[0] for name in quantizers(model)} == {"0", "3", "6"}
    assert torch.equal(weights(model)["11"], weights(cnn)["11"])
    assert plan.notes[1] == "storage only: ONNX Runtime turns float16 weights to float32 on CPUs: 0, 3, 6"


def test_masked_weights_stay_zero(cnn: Cnn, batches: Batches, context: Made) -> None:
    pruned, _ = compress(Magnitude(0.5), cnn, batches, context())
    model, _ = compress(Float16(), pruned, batches, context())
    assert sum(int((each == 0).sum()) for each in weights(model).values()) >= 0.49 * sum(
        each.numel() for each in weights(model).values()
    )


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Float16(skip=["head*"]), r"here.skip: 'head\*' matches no layer; layers: 0, 3, 6, 11"),
        (Float16(skip=["*"]), "here: no layer is left to store in float16"),
    ],
    ids=["glob", "none left"],
)
def test_bad_globs_are_named(cnn: Cnn, batches: Batches, context: Made, method: Float16, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        method.plan(cnn, batches, context())


def test_a_weight_beyond_float16_is_named(cnn: Cnn, batches: Batches, context: Made) -> None:
    cnn.get_submodule("11").get_parameter("weight").data[0, 0] = 1e5
    with pytest.raises(
        MethodError, match=r"here: layer 11: a weight of 1e\+05 is beyond float16's largest, 6.55e\+04;"
    ):
        Float16().plan(cnn, batches, context())
    BFloat16().plan(cnn, batches, context())


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        ([], "fp32"),
        ([Linear()], "int8"),
        ([Linear(weight_bits=4)], "w4a8"),
        ([Linear(weight_bits=4, activation_bits=32)], "w4a32"),
        ([Linear(bits=16)], "w16a16"),
        ([Linear(layers={"11": Override(weight_bits=2)})], "w2-8a8"),
        ([Float16()], "float16"),
        ([BFloat16()], "bfloat16"),
        ([Linear(skip=["11"]), Float16(skip=["0", "3", "6"])], "int8+float16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_variant_says_the_true_widths(
    cnn: Cnn, batches: Batches, context: Made, methods: list[Any], expected: str
) -> None:
    model: nn.Module = cnn
    for method in methods:
        model, _ = compress(method, model, batches, context())
    assert facts.variant(model) == expected
