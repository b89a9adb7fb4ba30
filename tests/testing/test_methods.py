"""check_method passes every built-in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimline import plugins
from slimline.factorization.ranks import Energy, Ratio
from slimline.method import Batches, Context, compress
from slimline.methods.linear import Linear
from slimline.methods.symmetric import Symmetric
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.quantization.keys import Override
from slimline.quantization.plan import Quantize
from slimline.tasks.digits import Digits
from slimline.testing import check_method


def forced(method: str, **ranks: list[int]) -> dict[str, Any]:
    """Return decisions that give these layers these ranks, as a measurement would have."""
    layers = {name.replace("_", "."): {"ranks": value, "why": "forced"} for name, value in ranks.items()}
    return {method: {"layers": layers, "summary": "forced"}}


def test_structured_on_the_default_models() -> None:
    check_method(plugins.find("methods", "structured")(importance="l2", multiple=4))


@dataclass(frozen=True)
class Case:
    """A method, the model that it is tried on, and what it may refuse to follow."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    model: str = "cnn"
    choices: dict[str, Any] = field(default_factory=dict)
    may_refuse: tuple[str, ...] = ()


FOLDED = ("linear",)  # quantizing folds the BatchNorms that bn-scale reads
CASES = {
    "symmetric": Case("symmetric", {"calibrator": "percentile", "percentile": 99.9}, "resnet"),
    "linear": Case("linear", {"weights": "symmetric"}),
    "blocks": Case("symmetric", {"bits": 4, "granularity": "block", "block": 4, "calibrator": "entropy"}),
    "weights alone": Case("linear", {"weight_bits": 3, "activation_bits": 32, "weights": "linear"}),
    "own widths": Case("linear", {"bits": 12, "layers": {"3": Override(bits=5)}, "calibrator": "mse"}),
    "svd": Case("svd", {"multiple": 2}, choices=forced("svd", **{"11": [4]})),
    "tucker2": Case("tucker2", {"multiple": 2}, "resnet", forced("tucker2", stages_1_0_conv2=[4, 6])),
    "spatial": Case("spatial", {"rank": Energy(0.8), "multiple": 2}),
    "cp": Case("cp", {"rank": Ratio(0.5), "multiple": 2, "whiten": False}),
    "magnitude": Case("magnitude", {"ratio": 0.7, "schedule": "cubic", "start": 0.3, "every": 1}, "resnet"),
    "sensitivity": Case("magnitude", {"ratio": 0.6, "scope": "sensitivity"}),
    "n-m": Case("n-m", {"n": 1, "m": 2}),
    "fisher": Case("structured", {"importance": "fisher", "multiple": 2}),
    "hessian": Case("structured", {"importance": "hessian", "multiple": 2}),
    "bn-scale": Case(
        "structured", {"importance": "bn-scale", "multiple": 2, "scope": "sensitivity"}, may_refuse=FOLDED
    ),
    "macs": Case("structured", {"of": "macs", "multiple": 2}, "resnet"),
    "bytes": Case("structured", {"of": "bytes", "multiple": 2}),
    "sparsify l1": Case("sparsify", {"kind": "l1"}),
    "sparsify l2": Case("sparsify", {"kind": "l2"}, "resnet"),
    "sparsify bn-scale": Case("sparsify", {"kind": "bn-scale"}, may_refuse=FOLDED),
    "sparsify group-lasso": Case("sparsify", {"kind": "group-lasso"}),
    "sparsify growing": Case("sparsify", {"kind": "growing"}, "resnet"),
    "learned steps": Case("symmetric", {"bits": 6, "learned_steps": True}, "resnet"),
    "adaround": Case("symmetric", {"bits": 6, "rounding": "adaround", "rounding_steps": 10}, "normed"),
    "equalize": Case("linear", {"equalize": True}, "normed"),
    "smooth": Case("linear", {"smooth": 0.5}, "normed"),
    "bias correction": Case(
        "linear", {"bias_correction": True, "calibrator": "moving-average", "momentum": 0.5}, "normed"
    ),
    "dynamic ranges": Case("linear", {"ranges": "dynamic"}),
    "float16": Case("float16", {}, "resnet"),
    "bfloat16": Case("bfloat16"),
}


class Normed(nn.Module):
    """A feed-forward behind a LayerNorm, which a sum reads too; no BatchNorm, so that folding copies no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(64, 16), nn.LayerNorm(16)
        self.wide, self.narrow, self.last = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.first(image.flatten(1)))
        out: Tensor = self.last(x + self.narrow(torch.relu(self.wide(x))))
        return out


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_built_in_methods(case: Case, cnn: Cnn, resnet: ResNet, task: Digits) -> None:
    method = plugins.find("methods", case.name)(**case.settings)
    model = {"cnn": cnn, "resnet": resnet, "normed": Normed()}[case.model]
    check_method(method, model, task, choices=case.choices, may_refuse=case.may_refuse)


@pytest.mark.parametrize("kind", [Linear, Symmetric])
def test_every_key_that_changes_what_quantizing_makes_has_a_case(kind: type[Quantize]) -> None:
    """The next key that writes into weights, and into those of the model it was given, is found by its case."""
    chosen = {"bits", "skip", "choices", "budget", "max_loss"}  # tests/quantization/test_mixed_precision.py
    tried = {key for case in CASES.values() if case.name in {"linear", "symmetric"} for key in case.settings}
    assert {each.name for each in fields(kind)} - tried - chosen == set()


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
