"""LSQ: the gradient of the step, its optimizer, recovery, and what later stages and exports make of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline.export.facts import count_params
from slimline.export.onnx import to_onnx
from slimline.export.onnx_trt import OnnxTrt
from slimline.export.signed import requantize
from slimline.factorization.ranks import Ratio
from slimline.method import Batches, Context, Method, compress
from slimline.methods.linear import Linear
from slimline.methods.magnitude import Magnitude
from slimline.methods.structured import Structured
from slimline.methods.svd import Svd
from slimline.methods.symmetric import Symmetric
from slimline.models.cnn import Cnn
from slimline.params import Training
from slimline.quantization.grids import Spec
from slimline.quantization.quantizers import Quantizer, learned_scales, quantizers, weight_quantizer
from slimline.task import Split
from slimline.tasks.digits import Digits
from slimline.training import State, fit
from slimline.training.losses import SoftTargets
from slimline.training.optimizers import PACE, optimizer

Made = Callable[..., Context]
Answer = Callable[[Any, NDArray[np.float32]], NDArray[np.float32]]


def lsq(x: Tensor, step: float, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Return (∂x̂/∂x, ∂x̂/∂s) of each value as the paper's equations 3 and 5 write them."""
    v = x / step
    inside = (v > low) & (v < high)
    by_step = torch.where(inside, v.round() - v, torch.where(v <= low, float(low), float(high)))
    return inside.float(), by_step


@given(
    st.integers(2, 8), st.sampled_from(["symmetric", "linear"]), st.floats(0.05, 2),
    st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=20),
)  # fmt: skip
def test_gradients_are_those_of_the_paper(bits: int, scheme: Any, step: float, numbers: list[float]) -> None:
    spec = Spec(bits, scheme, learned=True)
    quantizer = Quantizer(spec)
    quantizer.scale.data.fill_(step)
    x = torch.tensor([numbers], requires_grad=True)
    upstream = torch.linspace(-1, 2, x.numel())[None]
    (quantizer(x) * upstream).sum().backward()
    step = float(quantizer.scale.detach())
    ends = (x / step).detach()
    clear = ((ends - spec.qmin).abs() > 1e-4) & (
        (ends - spec.qmax).abs() > 1e-4
    )  # either side of an end is right there
    by_x, by_step = lsq(x.detach(), step, spec.qmin, spec.qmax)
    assert x.grad is not None
    torch.testing.assert_close(x.grad[clear], (by_x * upstream)[clear], rtol=1e-4, atol=1e-5)
    if clear.all():
        g = 1 / math.sqrt(x.numel() * spec.qmax)
        assert quantizer.scale.grad is not None
        torch.testing.assert_close(quantizer.scale.grad, g * (by_step * upstream).sum(), rtol=1e-3, atol=1e-4)


def test_the_gradient_of_a_channels_step_counts_its_own_weights() -> None:
    weight = torch.randn(3, 8)
    quantizer = weight_quantizer(Spec(3, "symmetric", axis=0, learned=True), weight)
    quantizer.fit(weight)
    quantizer(weight).sum().backward()
    assert quantizer.scale.grad is not None
    for channel in range(3):
        _, by_step = lsq(weight[channel], float(quantizer.scale[channel].detach()), -3, 3)
        torch.testing.assert_close(
            quantizer.scale.grad[channel], by_step.sum() / math.sqrt(8 * 3), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("scheme", ["symmetric", "linear"])
def test_a_learned_step_starts_no_worse_than_the_extremes(bits: int, scheme: Any) -> None:
    weight = torch.randn(6, 40)
    errors = []
    for learned in (False, True):
        quantizer = weight_quantizer(Spec(bits, scheme, axis=0, learned=learned), weight)
        quantizer.fit(weight)
        errors.append((quantizer(weight) - weight).detach().square().sum(1))
    assert (errors[1] <= errors[0] * 1.0001).all()
    assert bits > 3 or errors[1].sum() < 0.9 * errors[0].sum()


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_steps_do_not_decay_and_move_in_proportion(cnn: Cnn, batches: Batches, context: Made, kind: Any) -> None:
    method = Symmetric(bits=4, granularity="block", block=4, learned_steps=True)
    model, _ = compress(method, cnn, batches, context())
    made = optimizer([model], Training(epochs=1, lr=0.01, weight_decay=0.1, optimizer=kind))
    scales = {id(scale) for scale in learned_scales(model)}
    assert any(scale.ndim > 1 for scale in learned_scales(model)), "blocks have a matrix of scales"
    owned = [id(p) for group in made.param_groups for p in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in model.parameters())
    for group in made.param_groups:
        if {id(p) for p in group["params"]} & scales:
            assert {id(p) for p in group["params"]} <= scales
            assert group["weight_decay"] == 0
            expected = 0.01 * (PACE * float(group["params"][0].detach().median()) if kind == "adamw" else 1)
            assert group["lr"] == pytest.approx(expected)
        else:
            assert group["lr"] == 0.01
            assert group["weight_decay"] == (0.1 if group["params"][0].ndim > 1 else 0)


@pytest.mark.parametrize("bits", [2, 3])
def test_learned_steps_beat_frozen_ones_after_the_same_recovery(
    cnn: Cnn, batches: Batches, context: Made, task: Digits, splits: dict[str, Split], tmp_path: Path, bits: int
) -> None:
    accuracies: dict[bool, list[float]] = {False: [], True: []}
    for learned, seed in product(accuracies, range(3)):
        method = Symmetric(bits=bits, learned_steps=learned)
        model, _ = compress(method, cnn, batches, context())
        before = {name: quantizer.scale.clone() for name, quantizer in quantizers(model).items()}
        history = fit(
            model, task, splits["train"], splits["validation"], Training(epochs=3, batch_size=64, lr=5e-3),
            loss=SoftTargets(), seed=seed, state=State({}, tmp_path / f"{learned} {seed}"), where="here",
        )  # fmt: skip
        moved = {name for name, each in quantizers(model).items() if not torch.equal(each.scale, before[name])}
        assert ("3.input_quantizer" in moved) is learned
        accuracies[learned].append(max(epoch.validation["accuracy"] for epoch in history))
    assert sum(accuracies[True]) > sum(accuracies[False])


def test_a_killed_run_goes_on_with_its_steps(
    cnn: Cnn, batches: Batches, context: Made, task: Digits, splits: dict[str, Split], tmp_path: Path
) -> None:
    method = Linear(bits=4, learned_steps=True)
    start, _ = compress(method, cnn, batches, context())

    class Killed(Exception):  # noqa: N818
        pass

    def run(folder: str, kill: bool) -> dict[str, Tensor]:
        model, _ = compress(method, cnn, batches, context())
        model.load_state_dict(start.state_dict())
        train, validation = splits["train"].head(200), splits["validation"]

        def stop(epoch: Any) -> None:
            if kill and epoch.epoch == 0:
                raise Killed

        fit(
            model, task, train, validation, Training(epochs=2, batch_size=50, lr=5e-3), loss=SoftTargets(), seed=0,
            state=State({}, tmp_path / folder), where="here", on_epoch=stop,
        )  # fmt: skip
        return model.state_dict()

    whole = run("whole", kill=False)
    with pytest.raises(Killed):
        run("killed", kill=True)
    resumed = run("killed", kill=False)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def crossed(model: nn.Module) -> nn.Module:
    """Turn every other learned scale negative, as training may."""
    with torch.no_grad():
        for index, scale in enumerate(learned_scales(model)):
            scale.mul_(-1 if index % 2 else 1)
    return model.eval()


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(Symmetric(learned_steps=True), id="symmetric"),
        pytest.param(Linear(bits=4, learned_steps=True), id="linear 4 bits"),
        pytest.param(Linear(weights="linear", learned_steps=True), id="affine weights"),
        pytest.param(Symmetric(4, activation_bits=32, granularity="block", block=4, learned_steps=True), id="blocks"),
    ],
)  # fmt: skip
def test_the_exported_model_answers_alike_whatever_the_sign(
    cnn: Cnn, batches: Batches, context: Made, task: Digits, images: Tensor, answer: Answer, method: Method
) -> None:
    model, _ = compress(method, cnn, batches, context())
    with torch.no_grad():
        before = model.eval()(images)
        expected = crossed(model)(images)
    assert torch.equal(before, expected)
    graph = to_onnx(model, task.signature())
    assert not {node.op_type for node in graph.graph.node} & {"Abs", "Max"}, "scales are constants"
    assert np.abs(answer(graph, images.numpy()) - expected.numpy()).max() < 0.05 * float(expected.std())
    assert any(float(scale.detach().min()) < 0 for scale in learned_scales(model)), "export leaves the model alone"


@pytest.mark.parametrize(("bits", "changed"), [(8, False), (4, True)])
def test_tensorrt_gets_the_trained_steps(
    cnn: Cnn, batches: Batches, context: Made, task: Digits, images: Tensor, tmp_path: Path, answer: Answer, bits: int,
    changed: bool,
) -> None:  # fmt: skip
    import onnx

    model = crossed(compress(Symmetric(bits=bits, learned_steps=True), cnn, batches, context())[0])
    signed, count = requantize(model)
    assert (count > 0) is changed
    for name, quantizer in quantizers(signed).items():
        old = quantizers(model)[name]
        assert (quantizer.scale > 0).all(), name
        if name.endswith("weight_quantizer") or not changed:
            torch.testing.assert_close(quantizer.scale, old.steps().detach(), rtol=0, atol=0)
    OnnxTrt()(model, task.signature(), tmp_path, {})
    found = answer(onnx.load(tmp_path / "model.trt.onnx"), images.numpy())
    with torch.no_grad():
        expected = signed(images).numpy()
    assert np.abs(found - expected).max() < 0.05 * expected.std()
    if not changed:
        assert np.abs(model(images).detach().numpy() - expected).max() < 1e-5


def test_steps_are_no_parameters_of_the_model(cnn: Cnn, batches: Batches, context: Made) -> None:
    frozen, _ = compress(Symmetric(), cnn, batches, context())
    learned, _ = compress(Symmetric(learned_steps=True), cnn, batches, context())
    assert count_params(learned) == count_params(frozen)


@pytest.mark.parametrize(
    "later",
    [
        Structured("l2", ratio=0.3, multiple=2), Structured("hessian", ratio=0.3, multiple=2), Magnitude(0.5),
        Svd(rank=Ratio(0.4), multiple=1),
    ],
    ids=["structured", "hessian", "magnitude", "svd"],
)  # fmt: skip
def test_later_methods_keep_learned_steps(
    cnn: Cnn, batches: Batches, context: Made, images: Tensor, later: Method
) -> None:
    model, _ = compress(Linear(bits=6, learned_steps=True), cnn, batches, context())
    after, _ = compress(later, model, batches, context())
    found = quantizers(after)
    assert all(quantizer.spec.learned and isinstance(quantizer.scale, nn.Parameter) for quantizer in found.values())
    for name, layer in after.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert found[f"{name}.weight_quantizer"].scale.shape == (len(layer.weight),), name
    after(images).sum().backward()
    assert all(scale.grad is not None for scale in learned_scales(after))
