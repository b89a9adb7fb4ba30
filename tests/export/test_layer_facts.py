"""What is said of a layer is what it is: by hand, against the ONNX file, and after any compression."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from slimline import manifest
from slimline.export import layer_facts, stored
from slimline.export.facts import count_macs
from slimline.export.onnx import export
from slimline.method import Batches, Context, Edit, Method, compress
from slimline.methods.linear import Linear
from slimline.methods.magnitude import Magnitude
from slimline.methods.structured import Structured
from slimline.methods.svd import Svd
from slimline.methods.symmetric import Symmetric
from slimline.methods.tucker2 import Tucker2
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.quantization.quantizers import QuantizedLinear
from slimline.task import Split
from slimline.tasks.digits import Digits

Describe = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def describe(task: Digits, splits: dict[str, Split], tmp_path: Path) -> Describe:
    """Export a model of the digits and return its layers by name."""

    def run(model: nn.Module) -> dict[str, dict[str, Any]]:
        export(model.eval(), task.signature(), tmp_path, {})
        found = layer_facts.describe(model, splits["validation"], tmp_path / "model.onnx", task.signature())
        manifest.canonical(found)  # no NaN, no infinity
        return {layer["name"]: layer for layer in found["layers"]}

    return run


METHODS: dict[str, list[Method]] = {
    "float": [],
    "pruned": [Structured("l2", ratio=0.4, multiple=4)],
    "int8": [Linear()],
    "symmetric": [Symmetric()],
    "pruned int8": [Structured("l2", ratio=0.4, multiple=4), Linear()],
    "4 bits": [Linear(weight_bits=4)],
    "weights only": [Symmetric(bits=4, activation_bits=32, granularity="block", block=8)],
    "sparse int8": [Magnitude(ratio=0.6), Symmetric()],
    "factorized int8": [Tucker2(), Svd(), Linear()],
    "int8 factorized": [Linear(), Tucker2(), Svd()],
}
RANKS = {"tucker2": {"stages.1.0.conv2": [4, 8]}, "svd": {"fc": [4], "stages.2.0.shortcut.0": [8]}}


Made = tuple[nn.Module, dict[str, dict[str, Any]], Path]


@pytest.fixture(scope="module")
def made(
    _warm_resnet: ResNet, batches: Batches, context: Callable[..., Context], task: Digits, splits: dict[str, Split],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Made]:  # fmt: skip
    """Return (model, its layers, its file) of the residual net compressed by ``METHODS``; each is made once."""
    known: dict[str, Made] = {}

    def get(kind: str) -> Made:
        if kind not in known:
            model: nn.Module = copy.deepcopy(_warm_resnet)
            for method in METHODS[kind]:
                model, _ = compress(method, model, batches, context(**RANKS))
            folder = tmp_path_factory.mktemp("export")
            export(model.eval(), task.signature(), folder, {})
            file = folder / "model.onnx"
            found = layer_facts.describe(model, splits["validation"].head(60), file, task.signature())
            known[kind] = model, {layer["name"]: layer for layer in found["layers"]}, file
        return known[kind]

    return get


@pytest.mark.parametrize("kind", METHODS)
def test_bytes_and_macs_of_all_layers_are_those_of_the_model(
    kind: str, made: Callable[[str], Made], task: Digits
) -> None:
    model, layers, file = made(kind)
    assert sum(layer["macs"] for layer in layers.values()) == count_macs(model, task.signature())
    weighted = [layer for layer in layers.values() if "weight" in layer]
    assert all(layer["bytes"] for layer in weighted), "every weight is found in the file"
    graph = onnx.load(file).graph
    held = sum(tensor.ByteSize() for tensor in graph.initializer)
    activations = sum(1 for node in graph.node if node.op_type == "QuantizeLinear")
    rest = held - sum(layer["bytes"] for layer in weighted)
    assert 0 <= rest <= 32 * activations + 64, "nothing is counted twice; scales and clip ends of activations are left"
    for layer in weighted:
        values = layer["values"]["counts"]
        assert sum(values) == math.prod(layer["weight"])
        in_file = layer["bytes"] / math.prod(layer["weight"])
        assert in_file >= layer["bits"] / 8 * 0.99, layer["name"]
    assert all(layer["output"] is not None for layer in layers.values())


@pytest.mark.parametrize("kind", METHODS)
def test_names_kinds_and_shapes_are_those_of_the_plain_model(kind: str, made: Callable[[str], Made]) -> None:
    model, layers, _ = made(kind)
    for name, layer in layers.items():
        module = model.get_submodule(name)
        assert layer["kind"] in {"Conv2d", "Linear", "Add", "AdaptiveAvgPool2d"}
        if "weight" in layer:
            assert layer["weight"] == list(module.get_parameter("weight").shape)
            assert layer["output"][0] == layer["weight"][0]
            assert layer["input"][0] == layer["weight"][1]
    wanted = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert wanted <= set(layers)
    assert (set(layers) > wanted) == ("int8" in kind or kind in {"symmetric", "4 bits"}), "sums and pools have ranges"


def test_sqnr_by_hand() -> None:
    """Weight 0.9 on a grid of step 0.5 becomes 1; inputs 1 and 2 stay: y = 0.9, 1.8 and ŷ = 1, 2."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    model[0].weight.data.fill_(0.9)
    layer = quantized(model, weight_step=0.5, input_step=1.0)
    rows = Split({"x": np.array([[1.0], [2.0]], np.float32)}, np.zeros(2))
    seen, order = layer_facts._observe(model, {"0": layer}, rows)
    assert order == ["0"]
    expected = 10 * math.log10((0.9**2 + 1.8**2) / (0.1**2 + 0.2**2))
    assert layer_facts._decibels(seen["0"]) == pytest.approx(expected, abs=0.01)
    assert expected == pytest.approx(19.08, abs=0.01)


def test_clipped_counts_what_lies_outside_the_range() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    layer = quantized(model, weight_step=1.0, input_step=0.01)  # ±1.27
    x = np.array([[-2.0], [-1.0], [0.0], [1.0], [1.3], [5.0], [1.2], [0.4]], np.float32)
    seen, _ = layer_facts._observe(model, {"0": layer}, Split({"x": x}, np.zeros(8)))
    (found,) = layer_facts._inputs(seen["0"])
    assert found["clipped"] == 3 / 8
    assert (found["quantizer"]["low"], found["quantizer"]["high"]) == pytest.approx((-1.27, 1.27))


def quantized(model: nn.Sequential, weight_step: float, input_step: float) -> QuantizedLinear:
    """Quantize the one layer of ``model`` by int8 with these steps."""
    edit = {"bits": 8, "scheme": "symmetric", "axis": None}
    Symmetric.apply(model, Edit("symmetric", {"fold": [], "layers": ["0"], "weight": edit, "activation": edit}))
    layer = model[0]
    assert isinstance(layer, QuantizedLinear)
    layer.weight_quantizer.scale.fill_(weight_step)
    layer.input_quantizer.scale.fill_(input_step)  # type: ignore[operator, union-attr]
    return layer


def test_fewer_bits_are_fewer_decibels(made: Callable[[str], Made]) -> None:
    eight, four = (
        {name: layer["sqnr"] for name, layer in made(kind)[1].items() if "quantizer" in layer}
        for kind in ("int8", "4 bits")
    )
    assert eight.keys() == four.keys()
    for name, decibels in eight.items():
        assert 6 < decibels - four[name] < 26, name  # 6.02 dB a bit, where weights alone made the error
        assert 25 < decibels < 60
    assert all(layer["sqnr"] is None for layer in made("float")[1].values())


def test_observing_changes_nothing(cnn: Cnn, batches: Batches, context: Callable[..., Context], images: Tensor) -> None:
    model, _ = compress(Linear(), cnn, batches, context())
    model.eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = model(images)
    layer_facts._observe(model, layer_facts.of_interest(model), Split({"image": images.numpy()}, np.zeros(40)))
    assert torch.equal(model(images), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_masks_and_zeros(cnn: Cnn, batches: Batches, context: Callable[..., Context], describe: Describe) -> None:
    sparse, _ = compress(Magnitude(ratio=0.6), cnn, batches, context())
    layers = describe(sparse)
    masked = sum(layer["masked"] * math.prod(layer["weight"]) for layer in layers.values())
    total = sum(math.prod(layer["weight"]) for layer in layers.values())
    assert masked / total == pytest.approx(0.6, abs=0.01)
    summary = layer_facts.summary(list(layers.values()))
    assert summary["sparsity"] == pytest.approx(masked / total)
    assert summary["bits"] == {"weights": {"32": total}, "activations": {"32": 4}}
    rounded, _ = compress(Symmetric(), sparse, batches, context())
    for name, layer in describe(rounded).items():
        if "weight" in layer:
            assert layer["masked"] == layers[name]["masked"]
            assert layer["zeros"] >= layer["masked"], "rounding adds zeros and takes none away"


def test_weights_as_stored_and_before_rounding(
    cnn: Cnn, batches: Batches, context: Callable[..., Context], describe: Describe
) -> None:
    model, _ = compress(Linear(weight_bits=2, granularity="tensor"), cnn, batches, context())
    layer = describe(model)["3"]
    assert layer["quantizer"]["bits"] == layer["bits"] == 2
    assert layer["float_bits"] == 32
    filled = [sum(1 for count in layer[kind]["counts"] if count) for kind in ("values", "float")]
    assert filled[0] <= 3
    assert filled[1] > 20


class Odd(nn.Module):
    """A layer that is called twice, one that is never called, one that is called by keyword, and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 6)
        self.twice = nn.Linear(6, 6)
        self.never = nn.Linear(3, 3)
        self.named = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.words(x).mean(1)
        return self.named(input=self.twice(torch.relu(self.twice(y))))  # type: ignore[no-any-return]


def test_any_module_will_do(tmp_path: Path) -> None:
    signature = {
        "inputs": [{"name": "x", "dtype": "int64", "shape": ["batch", 5]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 10]}],
    }
    model = Odd().eval()
    export(model, signature, tmp_path, {})
    rows = Split({"x": np.arange(40).reshape(8, 5) % 7}, np.zeros(8))
    found = layer_facts.describe(model, rows, tmp_path / "model.onnx", signature)
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert list(layers) == ["words", "twice", "never", "named"]
    assert layers["words"]["inputs"] == [], "row numbers have no distribution"
    assert layers["words"]["bytes"] == pytest.approx(4 * 42, abs=24)
    assert layers["twice"]["macs"] == 2 * 36
    assert layers["twice"]["bytes"] == pytest.approx(4 * 42, abs=48)
    assert sum(layers["twice"]["inputs"][0]["values"]["counts"]) == 2 * 8 * 6
    assert layers["never"]["bytes"] is None
    assert layers["never"]["output"] is None
    assert layers["named"]["input"] == [6]
    json.dumps(found)


def test_a_layer_that_no_node_belongs_to_has_no_bytes(cnn: Cnn, task: Digits, tmp_path: Path) -> None:
    export(cnn.eval(), task.signature(), tmp_path, {})
    found = stored.by_layer(tmp_path / "model.onnx", [("other", [3, 5]), ("fc", [10, 32]), ("another", [3, 5])])
    assert set(found) == {"fc"}


class Words(nn.Module):
    """The mean over positions of an embedding, and a layer that reads each position."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 4)
        self.each = nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.each(self.words(ids)).mean(1)
        return out


def test_of_rows_of_several_lengths_as_many_are_looked_at_as_have_enough_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_facts, "POSITIONS", 300)
    lengths = np.tile([5, 15], 100)
    rows = Split({"ids": (np.arange(20) < lengths[:, None]).astype(np.int64)}, np.zeros(200), padding=("ids", 0))
    signature = {
        "inputs": [{"name": "ids", "dtype": "int64", "shape": ["batch", "length"]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 3]}],
        "axes": {"length": 20},
    }
    model = Words().eval()
    export(model, signature, tmp_path, {})
    found = layer_facts.describe(model, rows, tmp_path / "model.onnx", signature)
    layer = next(each for each in found["layers"] if each["name"] == "each")
    assert found["rows"] == 30
    assert layer["input"] == [15, 4]
    counted = sum(layer["inputs"][0]["values"]["counts"])
    assert counted <= 30 * 15 * 4
