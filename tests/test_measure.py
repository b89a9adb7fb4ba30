from __future__ import annotations

import pytest
import torch
from torch import nn

from slimline import measure
from slimline.grids import Spec
from slimline.latency import Samples
from slimline.models.cnn import Cnn
from slimline.params import Target
from slimline.quantizers import quantize_layer
from slimline.task import Split
from slimline.tasks.digits import Digits

TARGET = Target(batch_sizes=[1, 4])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 8, 3, stride=2, padding=1), (4, 8, 8)),
        (nn.Conv2d(4, 4, 3, padding="same", groups=4), (4, 8, 8)),
        (nn.Linear(16, 8), (16,)),
        (nn.Sequential(nn.Linear(16, 4), nn.Linear(4, 8)), (16,)),
    ],
    ids=["conv", "depthwise", "linear", "factors"],
)
def test_layers_are_timed_alone(layer: nn.Module, shape: tuple[int, ...]) -> None:
    variants = {"float": layer}
    if not isinstance(layer, nn.Sequential):
        variants["int8"] = quantize_layer(layer, Spec(axis=0), Spec(scheme="linear"))
    found = measure.layers(variants, shape, TARGET)
    assert set(found) == set(variants)
    assert all(seconds[batch] > 0 for seconds in found.values() for batch in (1, 4))


def test_models_are_timed_as_exported(cnn: Cnn, task: Digits, splits: dict[str, Split]) -> None:
    rows, _ = splits["calibration"][slice(0, 4)]
    found = measure.models({"a": cnn, "b": Cnn(width=4)}, task.signature(), rows, TARGET)
    assert set(found) == {"a", "b"}
    assert all(isinstance(found[name][batch], Samples) for name in found for batch in (1, 4))


@pytest.mark.parametrize(("threads", "waits"), [(1, False), (2, True)])
def test_only_a_runtime_with_a_pool_of_threads_is_waited_for(
    threads: int, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("slimline.latency.time.sleep", slept.append)
    measure.layers({"whole": nn.Linear(4, 4)}, (4,), TARGET.model_copy(update={"threads": threads}))
    assert slept
    assert any(slept) is waits


def test_gain_is_a_geometric_mean() -> None:
    assert measure.gain({1: 4.0, 8: 1.0}, {1: 1.0, 8: 1.0}) == pytest.approx(2)


def test_input_shapes_are_seen_in_a_forward_run(cnn: Cnn) -> None:
    assert measure.input_shapes(cnn, ["0", "3", "11"], {"image": torch.zeros(2, 1, 8, 8)}) == {
        "0": (1, 8, 8), "3": (8, 8, 8), "11": (32,),
    }  # fmt: skip
