from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from slimline.errors import MethodError, ParamsError
from slimline.method import Batches, Context, Method, compress, load_tensors
from slimline.methods.linear import Linear
from slimline.methods.symmetric import Symmetric
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.params import Configured, configure
from slimline.quantization import folding
from slimline.quantization.grids import Spec
from slimline.quantization.keys import Override
from slimline.quantization.quantizers import QuantizedConv2d, Quantizer, is_quantized, quantizers
from slimline.quantization.storage_only import storage_notes

METHODS = [
    pytest.param(Symmetric(), id="symmetric"),
    pytest.param(Linear(), id="linear"),
    pytest.param(Linear(weights="linear"), id="linear weights"),
    pytest.param(Linear(calibrator="percentile", percentile=99.9), id="percentile"),
    pytest.param(Symmetric(bits=6, calibrator="mse"), id="6 bits, mse"),
]
Made = Callable[..., Context]


def folded(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[nn.Module, list[tuple[str, str]]]:
    """Fold every norm that can be and put nothing in its place."""
    pairs = folding.batchnorm_pairs(model, inputs)
    folding.fold_weights(model, pairs)
    for _, norm in pairs:
        parent, _, leaf = norm.rpartition(".")
        setattr(model.get_submodule(parent), leaf, nn.Identity())
    return model, pairs


def test_folding_keeps_the_outputs_of_a_residual_net(resnet: ResNet, images: Tensor) -> None:
    before = resnet(images)
    model, pairs = folded(resnet, {"image": images})
    assert len(pairs) == 9
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-4)


def test_folding_keeps_a_convolutions_own_bias() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).eval()
    nn.init.normal_(model.get_buffer("1.running_mean"))
    x = torch.rand(4, 2, 5, 5)
    before = model(x)
    torch.testing.assert_close(folded(model, {"x": x})[0](x), before, rtol=1e-5, atol=1e-6)


class Shared(nn.Module):
    """One convolution read by two norms, and a norm behind a ReLU: nothing here may be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.one, self.two, self.far = nn.BatchNorm2d(2), nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        out: Tensor = torch.relu(self.one(y)) + self.far(torch.relu(self.two(y)))
        return out


def test_only_a_norm_that_alone_reads_a_convolution_is_a_pair() -> None:
    assert folding.batchnorm_pairs(Shared().eval(), {"x": torch.rand(1, 1, 2, 2)}) == []


@pytest.mark.parametrize("method", METHODS)
def test_planning_leaves_the_model_as_it_was(
    resnet: ResNet, batches: Batches, context: Made, images: Tensor, method: Method
) -> None:
    before = copy.deepcopy(resnet.state_dict())
    outputs = resnet(images)
    method.plan(resnet, batches, context())
    assert all(torch.equal(tensor, before[name]) for name, tensor in resnet.state_dict().items())
    assert torch.equal(resnet(images), outputs)
    assert not is_quantized(resnet)


@pytest.mark.parametrize("method", METHODS)
def test_applying_the_plan_and_loading_its_tensors_is_the_quantized_model(
    resnet: ResNet, batches: Batches, context: Made, images: Tensor, method: Method
) -> None:
    expected = resnet(images)
    compressed, plan = compress(method, resnet, batches, context())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in compressed.modules())
    assert len([m for m in compressed.modules() if isinstance(m, Quantizer)]) == 10 * 2 + 3 * 2 + 1
    error = (compressed(images) - expected).abs().max() / expected.abs().max()
    assert error < 0.1
    again = method.apply(copy.deepcopy(resnet), plan.edit)
    load_tensors(again, plan.tensors)
    assert torch.equal(again(images), compressed(images))


def test_quantizing_loses_little_on_a_trained_net(cnn: Cnn, batches: Batches, context: Made, images: Tensor) -> None:
    compressed, _ = compress(Linear(), cnn, batches, context())
    assert (compressed(images).argmax(1) == cnn(images).argmax(1)).float().mean() > 0.9


@pytest.mark.parametrize("first", METHODS)
@pytest.mark.parametrize("second", METHODS)
def test_quantizing_again_recalibrates(
    cnn: Cnn, batches: Batches, context: Made, images: Tensor, first: Method, second: Method
) -> None:
    """Ranges that come out as they were are in the plan too: apply starts from quantizers that are not set."""
    once, _ = compress(first, cnn, batches, context())
    twice, plan = compress(second, once, batches, context())
    assert plan.edit.data["fold"] == []
    reference, _ = compress(second, cnn, batches, context())
    for name, quantizer in quantizers(twice).items():
        assert not (quantizer.scale == 1).all(), name
        assert quantizer.spec == quantizers(reference)[name].spec
    torch.testing.assert_close(twice(images), reference(images), rtol=0.05, atol=0.5)


def test_skipped_layers_stay_in_floating_point(resnet: ResNet, batches: Batches, context: Made) -> None:
    compressed, plan = compress(Symmetric(skip=["fc", "stages.0.*"]), resnet, batches, context())
    touched = {name.rpartition(".")[0] for name in quantizers(compressed)}
    assert "conv" in touched
    assert not [name for name in touched if name == "fc" or name.startswith("stages.0.")]
    assert "fc" not in plan.edit.data["layers"]


def test_a_glob_that_matches_nothing_is_named_with_its_key(resnet: ResNet, batches: Batches, context: Made) -> None:
    with pytest.raises(MethodError, match=r"here.skip: 'classifier\*' matches no layer; layers: conv, stages"):
        Symmetric(skip=["classifier*"]).plan(resnet, batches, context())


def test_skipping_everything_is_an_error(resnet: ResNet, batches: Batches, context: Made) -> None:
    with pytest.raises(MethodError, match=r"here: no layer is left to quantize"):
        Symmetric(skip=["*"]).plan(resnet, batches, context())


def test_a_skipped_layer_of_a_quantized_model_stays_as_it_was(cnn: Cnn, batches: Batches, context: Made) -> None:
    once, _ = compress(Symmetric(), cnn, batches, context())
    twice, _ = compress(Linear(skip=["0"]), once, batches, context())
    assert quantizers(twice)["0.input_quantizer"].spec.scheme == "symmetric"
    assert quantizers(twice)["3.input_quantizer"].spec.scheme == "linear"
    assert torch.equal(quantizers(twice)["0.input_quantizer"].scale, quantizers(once)["0.input_quantizer"].scale)


# --- widths, granularity, overrides ----------------------------------------------------------------------------------


def specs(model: nn.Module) -> dict[str, Spec]:
    return {name: quantizer.spec for name, quantizer in quantizers(model).items()}


def test_weights_and_activations_have_widths_of_their_own(cnn: Cnn, batches: Batches, context: Made) -> None:
    compressed, _ = compress(Linear(bits=6, weight_bits=4), cnn, batches, context())
    for name, spec in specs(compressed).items():
        assert spec.bits == (4 if name.endswith("weight_quantizer") else 6)


def test_activations_of_32_bits_stay_in_floating_point(
    resnet: ResNet, batches: Batches, context: Made, images: Tensor
) -> None:
    compressed, plan = compress(Symmetric(weight_bits=4, activation_bits=32), resnet, batches, context())
    assert all(name.endswith("weight_quantizer") for name in quantizers(compressed))
    assert plan.edit.data["activation"] is None
    x = torch.rand(2, 1, 8, 8)
    conv = compressed.get_submodule("conv")
    assert isinstance(conv, QuantizedConv2d)
    assert torch.equal(conv.input_quantizer(x), x)


def test_quantizing_again_without_activations_takes_those_of_weighted_layers_off(
    resnet: ResNet, batches: Batches, context: Made
) -> None:
    once, _ = compress(Symmetric(), resnet, batches, context())
    twice, _ = compress(Symmetric(activation_bits=32), once, batches, context())
    left = [name for name in quantizers(twice) if not name.endswith("weight_quantizer")]
    assert left
    assert all("add" in name or "pool" in name for name in left), "what has no weights keeps its quantizers"


@pytest.mark.parametrize(
    ("granularity", "shape"), [("tensor", ()), ("channel", (16,)), ("block", (16, 2, 3, 3))], ids=str
)
def test_scales_lie_as_granularity_says(
    cnn: Cnn, batches: Batches, context: Made, granularity: str, shape: tuple[int, ...]
) -> None:
    method = configure("methods", Configured(name="symmetric", granularity=granularity, block=4), "here")
    compressed, _ = compress(method, cnn, batches, context())
    assert quantizers(compressed)["3.weight_quantizer"].scale.shape == shape
    if granularity == "block":
        assert quantizers(compressed)["0.weight_quantizer"].scale.shape == (8,), "one input channel fills no block"


def test_finer_scales_lose_less(cnn: Cnn, batches: Batches, context: Made) -> None:
    errors = []
    for granularity in ("tensor", "channel", "block"):
        method = configure("methods", Configured(name="symmetric", bits=4, granularity=granularity, block=4), "here")
        layer = compress(method, cnn, batches, context())[0].get_submodule("3")
        assert isinstance(layer, QuantizedConv2d)
        errors.append(float((layer.weight_quantizer(layer.weight) - layer.weight).detach().square().mean()))
    assert errors[0] > errors[1] > errors[2] > 0


def test_a_glob_gives_its_layers_other_keys_and_the_last_one_wins(
    resnet: ResNet, batches: Batches, context: Made
) -> None:
    layers = {"stages.*": Override(bits=4), "stages.1.*": Override(weight_bits=6, granularity="tensor")}
    compressed, plan = compress(Linear(weight_bits=7, layers=layers), resnet, batches, context())
    found = specs(compressed)
    assert found["conv.weight_quantizer"] == Spec(7, "symmetric", axis=0)
    assert found["conv.input_quantizer"] == Spec(8, "linear")
    assert found["stages.0.0.conv1.weight_quantizer"] == Spec(4, "symmetric", axis=0)
    assert found["stages.0.0.add.quantizers.0"] == Spec(4, "linear")
    assert found["stages.1.0.conv1.weight_quantizer"] == Spec(6, "symmetric")
    assert set(plan.edit.data["own"]) == {name for name in plan.edit.data["layers"] if name.startswith("stages.")}


def test_an_edit_whose_layers_are_all_alike_names_one_spec(cnn: Cnn, batches: Batches, context: Made) -> None:
    plan = Linear().plan(cnn, batches, context())
    assert plan.edit.data == {
        "fold": [["0", "1"], ["3", "4"], ["6", "7"]],
        "layers": ["0", "3", "6", "9", "11"],
        "weight": {"bits": 8, "scheme": "symmetric", "axis": 0},
        "activation": {"bits": 8, "scheme": "linear", "axis": None},
    }


def test_a_calibrator_of_their_own_for_some_layers(cnn: Cnn, batches: Batches, context: Made) -> None:
    plain, _ = compress(Linear(), cnn, batches, context())
    layers = {"3": Override(calibrator="percentile", percentile=90)}
    mixed, _ = compress(Linear(layers=layers), cnn, batches, context())
    for name, quantizer in quantizers(mixed).items():
        same = torch.equal(quantizer.scale, quantizers(plain)[name].scale)
        assert same != (name == "3.input_quantizer"), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 17}, r"here.bits: input should be less than or equal to 16, found 17"),
        ({"bits": 1}, r"here.bits: input should be greater than or equal to 2, found 1"),
        ({"layers": {"fc": {"bitz": 4}}}, r"here.layers.fc.bitz: unknown key"),
        ({"layers": {"fc": {"bits": 40}}}, r"here.layers.fc.bits: input should be less"),
        ({"calibrator": "max"}, r"here.calibrator: input should be 'minmax', 'moving-average'"),
    ],
    ids=["too wide", "too narrow", "unknown key", "too wide for a layer", "calibrator"],
)
def test_bad_keys_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        configure("methods", Configured(name="linear", **settings), "here")


def test_an_override_whose_glob_matches_nothing_is_an_error(cnn: Cnn, batches: Batches, context: Made) -> None:
    with pytest.raises(MethodError, match=r"here.layers: 'head.\*' matches no layer; layers: 0, 3, 6, 9, 11"):
        Linear(layers={"head.*": Override(bits=4)}).plan(cnn, batches, context())


class Stray(ResNet):
    """A residual net with a layer that forward never reaches."""

    def __init__(self) -> None:
        super().__init__(depth=8, width=4, stem_stride=1)
        self.stray = nn.Linear(2, 2)


def test_a_layer_that_no_row_reaches_is_named_with_the_key(batches: Batches, context: Made) -> None:
    with pytest.raises(MethodError, match=r"here: layer stray: calibration saw no data; is it reached in forward"):
        Linear().plan(Stray().eval(), batches, context())


@pytest.mark.parametrize(
    ("layer", "weight", "activation", "slow"),
    [
        (nn.Linear(4, 4), Spec(8), Spec(8), False),
        (nn.Conv2d(4, 4, 1), Spec(5), Spec(4), False),
        (nn.Conv2d(4, 4, 1), Spec(4), Spec(8), True),
        (nn.Conv2d(4, 4, 1), Spec(8), Spec(9), True),
        (nn.Conv2d(4, 4, 1), Spec(8), None, True),
        (nn.Linear(4, 4), Spec(4, axis=0, block=32), None, False),
        (nn.Linear(4, 4), Spec(4, axis=0, block=32), Spec(8), True),
        (nn.Linear(4, 4), Spec(4, axis=0), None, True),
        (nn.AdaptiveAvgPool2d(1), Spec(4), Spec(4), False),
    ],
)
def test_widths_without_a_fast_kernel_are_labelled(
    layer: nn.Module, weight: Spec, activation: Spec | None, slow: bool
) -> None:
    notes = storage_notes({"fc": (layer, weight, activation)})
    assert bool(notes) == slow
    assert not notes or (notes[0].startswith("storage only: ") and notes[0].endswith(": fc"))
