"""check_method passes every built-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from slimline import plugins
from slimline.factorization import Energy, Ratio
from slimline.method import Batches, Context, compress
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.quantization import Override
from slimline.tasks.digits import Digits
from slimline.testing import check_method


def forced(method: str, **ranks: list[int]) -> dict[str, Any]:
    """Return decisions that give these layers these ranks, as a measurement would have."""
    layers = {name.replace("_", "."): {"ranks": value, "why": "forced"} for name, value in ranks.items()}
    return {method: {"layers": layers, "summary": "forced"}}


def test_structured_on_the_default_models() -> None:
    check_method(plugins.find("methods", "structured")(importance="l2", multiple=4))


@pytest.mark.parametrize(
    ("name", "settings", "model", "choices"),
    [
        ("symmetric", {"calibrator": "percentile"}, "resnet", {}),
        ("linear", {"weights": "symmetric"}, "cnn", {}),
        ("symmetric", {"bits": 4, "granularity": "block", "block": 4, "calibrator": "entropy"}, "cnn", {}),
        ("linear", {"weight_bits": 3, "activation_bits": 32, "weights": "linear"}, "cnn", {}),
        ("linear", {"bits": 12, "layers": {"3": Override(bits=5)}, "calibrator": "mse"}, "cnn", {}),
        ("svd", {"multiple": 2}, "cnn", forced("svd", **{"11": [4]})),
        ("tucker2", {"multiple": 2}, "resnet", forced("tucker2", stages_1_0_conv2=[4, 6])),
        ("spatial", {"rank": Energy(0.8), "multiple": 2}, "cnn", {}),
        ("cp", {"rank": Ratio(0.5), "multiple": 2, "whiten": False}, "cnn", {}),
        ("magnitude", {"ratio": 0.7, "schedule": "cubic", "start": 0.3, "every": 1}, "resnet", {}),
        ("magnitude", {"ratio": 0.6, "scope": "sensitivity"}, "cnn", {}),
        ("n-m", {"n": 1, "m": 2}, "cnn", {}),
        ("structured", {"importance": "fisher", "multiple": 2}, "cnn", {}),
        ("structured", {"importance": "hessian", "multiple": 2}, "cnn", {}),
        ("structured", {"importance": "bn-scale", "multiple": 2, "scope": "sensitivity"}, "cnn", {}),
        ("sparsify", {"kind": "group-lasso"}, "cnn", {}),
        ("symmetric", {"bits": 6, "learned_steps": True, "equalize": True}, "resnet", {}),
        ("symmetric", {"bits": 6, "rounding": "adaround", "rounding_steps": 10, "bias_correction": True}, "cnn", {}),
        ("linear", {"ranges": "dynamic"}, "cnn", {}),
        ("float16", {}, "resnet", {}),
        ("bfloat16", {}, "cnn", {}),
    ],
    ids=[
        "symmetric",
        "linear",
        "blocks",
        "weights alone",
        "own widths",
        "svd",
        "tucker2",
        "spatial",
        "cp",
        "magnitude",
        "sensitivity",
        "n-m",
        "fisher",
        "hessian",
        "bn-scale",
        "sparsify",
        "learned steps",
        "adaround",
        "dynamic ranges",
        "float16",
        "bfloat16",
    ],
)
def test_built_in_methods(
    name: str,
    settings: dict[str, Any],
    model: str,
    choices: dict[str, Any],
    cnn: Cnn,
    resnet: ResNet,
    task: Digits,
) -> None:
    method = plugins.find("methods", name)(**settings)
    check_method(method, {"cnn": cnn, "resnet": resnet}[model], task, choices=choices)


@pytest.mark.parametrize("model", ["cnn", "resnet"])
@pytest.mark.parametrize("method", ["symmetric", "linear"])
def test_quantizing_again_on_the_same_data_changes_nothing(
    method: str, model: str, request: pytest.FixtureRequest, batches: Batches, context: Callable[..., Context]
) -> None:
    """check_method found it: ranges that stayed the same were left out of the plan, though apply had reset them."""
    chosen = plugins.find("methods", method)()
    once, _ = compress(chosen, request.getfixturevalue(model), batches, context())
    twice, _ = compress(chosen, once, batches, context())
    assert all(torch.equal(tensor, twice.state_dict()[name]) for name, tensor in once.state_dict().items())
