from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from slimline import quantization
from slimline.errors import MethodError
from slimline.method import Batches, Context, Method, compress, load_tensors
from slimline.methods.linear import Linear
from slimline.methods.symmetric import Symmetric
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.quantizers import Quantizer, is_quantized, quantizers

METHODS = [
    pytest.param(Symmetric(), id="symmetric"),
    pytest.param(Linear(), id="linear"),
    pytest.param(Linear(weights="linear"), id="linear weights"),
    pytest.param(Linear(calibrator="percentile", percentile=99.9), id="percentile"),
]
Made = Callable[..., Context]


def folded(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[nn.Module, list[tuple[str, str]]]:
    """Fold every norm that can be and put nothing in its place."""
    pairs = quantization.batchnorm_pairs(model, inputs)
    quantization.fold_weights(model, pairs)
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
    assert quantization.batchnorm_pairs(Shared().eval(), {"x": torch.rand(1, 1, 2, 2)}) == []


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
