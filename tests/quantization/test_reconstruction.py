from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimline import artifact, metrics
from slimline.artifact import Artifact
from slimline.method import Batches, Context, Method, compress
from slimline.methods.linear import Linear
from slimline.methods.magnitude import Magnitude
from slimline.methods.symmetric import Symmetric
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.params import Training
from slimline.pruning import masks
from slimline.quantization.grids import spread
from slimline.quantization.quantizers import QuantizedConv2d, QuantizedLinear, plain
from slimline.task import Split
from slimline.tasks.digits import Digits
from slimline.training import State, fit
from slimline.training.losses import SoftTargets

Made = Callable[..., Context]
STEPS = 200


def weighted(model: nn.Module) -> dict[str, Any]:
    return {name: each for name, each in model.named_modules() if isinstance(each, QuantizedConv2d | QuantizedLinear)}


def off_grid(layer: Any) -> float:
    """Return how far the farthest weight is from its grid, in steps."""
    quantizer = layer.weight_quantizer
    step = spread(quantizer.spec, quantizer.steps(), layer.weight.shape)
    return float((layer.weight / step - (layer.weight / step).round()).detach().abs().max())


def means(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the mean output of each channel of each weighted layer."""
    found: dict[str, Tensor] = {}

    def see(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _args: Any, out: Tensor) -> None:
            found[name] = out.detach().movedim(1, 0).flatten(1).mean(1)

        return hook

    kinds = (nn.Conv2d, nn.Linear)
    hooks = [m.register_forward_hook(see(name)) for name, m in model.named_modules() if isinstance(m, kinds)]
    model(images)
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
@pytest.mark.parametrize("granularity", ["channel", "block"])
def test_adaround_puts_weights_on_their_grid_and_answers_nearer(
    cnn: Cnn, batches: Batches, context: Made, images: Tensor, granularity: Any
) -> None:
    expected = cnn(images)
    errors = []
    for rounding in ("nearest", "adaround"):
        method = Symmetric(
            weight_bits=3,
            rounding=rounding,
            rounding_steps=STEPS,
            granularity=granularity,
            block=4,  # type: ignore[arg-type]
        )
        model, plan = compress(method, cnn, batches, context())
        errors.append(float((model.eval()(images) - expected).square().mean()))
    assert errors[1] < 0.5 * errors[0]
    assert max(off_grid(layer) for layer in weighted(model).values()) < 1e-4
    assert [note for note in plan.notes if note.startswith("6: AdaRound leaves ")]


@torch.no_grad()
def test_bias_correction_takes_the_shift_of_every_channel_away(
    resnet: ResNet, batches: Batches, context: Made, images: Tensor
) -> None:
    shifts = []
    for corrected in (False, True):
        model, _ = compress(Symmetric(weight_bits=3, bias_correction=corrected), resnet, batches, context())
        bare, _ = compress(Symmetric(), resnet, batches, context())
        expected = means(plain(bare).eval(), images)
        shifts.append(
            {name: float((each - expected[name]).abs().mean()) for name, each in means(model, images).items()}
        )
    for name, shift in shifts[1].items():
        assert shift < 0.7 * shifts[0][name], name


def test_layers_without_a_bias_get_one(batches: Batches, context: Made, images: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10, bias=False)
    ).eval()
    compressed, plan = compress(Symmetric(bits=4, bias_correction=True), model, batches, context())
    assert plan.edit.data["bias"] == ["0", "3"]
    assert compressed[3].bias.abs().max() > 0  # type: ignore[index, union-attr]
    assert model[3].bias is None
    again, more = compress(Linear(bias_correction=True), compressed, batches, context())
    assert more.edit.data["bias"] == []
    assert again(images).isfinite().all()


METHODS = [
    pytest.param(Symmetric(bits=4, rounding="adaround", rounding_steps=20, bias_correction=True), id="all"),
    pytest.param(Linear(bits=4, weights="linear", rounding="adaround", rounding_steps=20), id="affine adaround"),
    pytest.param(Linear(granularity="block", block=4, bits=4, bias_correction=True, equalize=True), id="blocks"),
    pytest.param(Symmetric(granularity="tensor", equalize=True), id="equalize"),
    pytest.param(Symmetric(bits=4, learned_steps=True, rounding="adaround", rounding_steps=20), id="learned"),
]


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_a_saved_model_answers_bit_for_bit(
    cnn: Cnn, batches: Batches, context: Made, images: Tensor, tmp_path: Path, task: Digits,
    described: dict[str, Artifact], method: Method,
) -> None:  # fmt: skip
    before = copy.deepcopy(cnn.state_dict())
    model, plan = compress(method, cnn, batches, context())
    assert all(torch.equal(tensor, before[name]) for name, tensor in cnn.state_dict().items())
    edited = Artifact(task=described["cnn"].task, model=described["cnn"].model, edits=[plan.edit], stage="quantize")
    artifact.save(tmp_path / "quantize", model, edited)
    loaded, _ = artifact.load(tmp_path / "quantize", task=task)
    assert torch.equal(loaded(images), model.eval()(images))


def test_masked_weights_are_still_zero(cnn: Cnn, batches: Batches, context: Made) -> None:
    pruned, _ = compress(Magnitude(0.5), cnn, batches, context())
    model, _ = compress(Symmetric(bits=3, rounding="adaround", rounding_steps=50), pruned, batches, context())
    for name, layer in masks.masked(model).items():
        assert not masks.weight(layer)[~masks.live(layer)].any(), name


def test_training_goes_on_from_what_was_rounded(
    cnn: Cnn, batches: Batches, context: Made, task: Digits, splits: dict[str, Split], tmp_path: Path, images: Tensor
) -> None:
    """The range that training takes of the rounded weights is the grid that they stand on."""
    method = Symmetric(weight_bits=3, rounding="adaround", rounding_steps=STEPS)
    model, _ = compress(method, cnn, batches, context())
    with torch.no_grad():
        still = model.eval()(images)
        weights = {name: layer.quantized_weight() for name, layer in weighted(model).items()}
        for name, layer in weighted(model.train()).items():
            torch.testing.assert_close(layer.quantized_weight(), weights[name], rtol=0, atol=1e-5)
        torch.testing.assert_close(model.eval()(images), still, rtol=0, atol=0.05 * float(still.std()))
    before = metrics.evaluate(model, task, splits["validation"])["accuracy"]
    history = fit(
        model, task, splits["train"], splits["validation"], Training(epochs=2, batch_size=64, lr=5e-3),
        loss=SoftTargets(), seed=0, state=State({}, tmp_path), where="here", methods=[method],
    )  # fmt: skip
    assert max(epoch.validation["accuracy"] for epoch in history) > before - 0.02


def test_the_seed_decides_the_rounding(cnn: Cnn, batches: Batches, context: Made) -> None:
    method = Symmetric(bits=3, rounding="adaround", rounding_steps=30)
    one, two = (method.plan(cnn, batches, context()) for _ in range(2))
    assert all(torch.equal(tensor, two.tensors[name]) for name, tensor in one.tensors.items())
