"""Tiny real models on tiny real data, shared by all tests."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from torch import nn

from slimline import benchmark, engines, manifest, params
from slimline.artifact import Artifact, Named
from slimline.decisions import Decisions
from slimline.export.onnx import export
from slimline.gate import judge
from slimline.method import Batch, Batches, Context
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.params import Target, Training
from slimline.release import build
from slimline.task import Split, call, tensors
from slimline.tasks.digits import Digits
from slimline.training import State, fit
from slimline.training.losses import SoftTargets
from tests.many_labels import write_release as write_many_release
from tests.text_releases import write_release as write_text_release

# Machines are shared: how long an example takes says nothing about it.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

os.environ["HF_HUB_OFFLINE"] = "1"  # a name that is no folder is refused at once, not after tries at the hub

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs TensorRT where it is not installed; make test-tensorrt installs it."""
    if not engines.is_installed():
        for item in items:
            if "tensorrt" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs the extra tensorrt"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from threads, and two workers share two cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def project() -> Path:
    """The repository, whose params.yaml, dvc.yaml and data the tests read."""
    return ROOT


@pytest.fixture(scope="session")
def task() -> Digits:
    return Digits()


@pytest.fixture(scope="session")
def splits(task: Digits) -> dict[str, Split]:
    return task.splits()


@pytest.fixture(scope="session")
def batches(splits: dict[str, Split]) -> Batches:
    """The calibration split in three batches of 50."""

    def each() -> Iterator[Batch]:
        split = splits["calibration"]
        for start in range(0, len(split), 50):
            inputs, y = split[slice(start, start + 50)]
            yield tensors(inputs), torch.from_numpy(y)

    return each


@pytest.fixture(scope="session")
def broken_batches(batches: Batches) -> Batches:
    """The same batches, with one row of the second that is not a number."""

    def each() -> Iterator[Batch]:
        for at, (inputs, y) in enumerate(batches()):
            if at == 1:
                inputs["image"] = inputs["image"].clone()
                inputs["image"][3] = torch.nan
            yield inputs, y

    return each


@pytest.fixture(scope="session")
def context(task: Digits, splits: dict[str, Split]) -> Callable[..., Context]:
    """Return a Context; keyword arguments are the ranks to force: ``context(svd={"fc": [4]})``."""

    def make(**ranks: dict[str, list[int]]) -> Context:
        decisions = Decisions(None, {})
        for method, chosen in ranks.items():
            layers = {name: {"ranks": value, "why": "forced"} for name, value in chosen.items()}
            decisions.choices[method] = {"layers": layers, "summary": "forced"}
        target = Target(batch_sizes=[1, 8])
        return Context(task, splits["calibration"], splits["validation"].head(60), target, decisions, where="here")

    return make


@pytest.fixture(scope="session")
def _trained_cnn(task: Digits, splits: dict[str, Split], tmp_path_factory: pytest.TempPathFactory) -> Cnn:
    torch.manual_seed(0)
    model = Cnn(width=8)
    fit(
        model, task, splits["train"], splits["validation"], Training(epochs=3, batch_size=64, lr=0.02),
        loss=SoftTargets(), seed=0, state=State({}, tmp_path_factory.mktemp("training")), where="here",
    )  # fmt: skip
    return model


@pytest.fixture
def cnn(_trained_cnn: Cnn) -> Cnn:
    """A convolutional network that has learnt its digits (three epochs)."""
    return copy.deepcopy(_trained_cnn)


@pytest.fixture(scope="session")
def _warm_resnet(splits: dict[str, Split]) -> ResNet:
    torch.manual_seed(0)
    model = ResNet(depth=8, width=8, stem_stride=1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    model.train()
    with torch.no_grad():
        for start in range(0, 800, 100):
            call(model, tensors(splits["train"][slice(start, start + 100)][0]))
    return model.eval()


@pytest.fixture
def resnet(_warm_resnet: ResNet) -> ResNet:
    """A residual network, untrained, whose BatchNorms have seen the data and are no identities."""
    return copy.deepcopy(_warm_resnet)


@pytest.fixture(scope="session")
def images(splits: dict[str, Split]) -> torch.Tensor:
    """Forty validation images, 40×1×8×8."""
    return torch.from_numpy(splits["validation"].inputs["image"][:40].copy())


@pytest.fixture(scope="session")
def described() -> dict[str, Artifact]:
    """What model.json says of the models above, without edits."""
    digits = Named("digits")
    return {
        "cnn": Artifact(digits, Named("cnn", {"width": 8}), [], "teacher"),
        "resnet": Artifact(digits, Named("resnet", {"depth": 8, "width": 8, "stem_stride": 1}), [], "teacher"),
    }


@pytest.fixture(scope="session")
def _document() -> dict[str, Any]:
    recovery = {"teacher": "teacher", "epochs": 1, "lr": 0.001}
    return {
        "task": {"name": "digits", "args": {}},
        "seed": 0,
        "teacher": {"model": {"name": "resnet", "args": {"depth": 8}}, "training": {"epochs": 1, "lr": 0.01}},
        "distill": {"from": "teacher", "model": {"name": "cnn"}, "training": {"epochs": 1, "lr": 0.01}},
        "prune": {"from": "distill", "methods": [{"name": "structured", "ratio": 0.3}], "recovery": recovery},
        "quantize": {"from": "prune", "methods": [{"name": "linear"}], "recovery": recovery},
        "factorize": {"from": "quantize", "methods": [{"name": "tucker2"}, {"name": "svd"}], "recovery": recovery},
        "export": {"stages": ["teacher", "distill", "prune", "quantize", "factorize"]},
    }


@pytest.fixture
def document(_document: dict[str, Any]) -> dict[str, Any]:
    """A small params.yaml as data: the whole default chain."""
    return copy.deepcopy(_document)


@pytest.fixture(scope="session")
def answer() -> Callable[[Any, NDArray[np.float32]], NDArray[np.float32]]:
    """Run an ONNX model in ONNX Runtime and return its first output."""

    def run(model: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        out: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: x})[0]
        return out

    return run


@pytest.fixture(scope="session")
def make_release(
    task: Digits, splits: dict[str, Split], _trained_cnn: Cnn, _document: dict[str, Any], tmp_path_factory: Any
) -> Callable[..., str]:
    """Write a real release of two stages, teacher and distill, and return its revision.

    ``make_release(path, scale=2.0)`` multiplies the last layer's weights, so that the answers differ;
    ``budget={…}`` is what it is judged by.
    """

    @cache
    def exported(scale: float) -> Path:
        folder: Path = tmp_path_factory.mktemp("exports") / "export"
        model = copy.deepcopy(_trained_cnn)
        model[-1].weight.data *= scale
        with manifest.sealed(folder) as scratch:
            export(model, task.signature(), scratch, {})
            manifest.write_json(scratch / "signature.json", task.signature())
            manifest.write_json(scratch / "preprocess.json", task.preprocess())
        return folder

    def make(target: Path, *, scale: float = 1.0, budget: dict[str, Any] | None = None) -> str:
        exports = tmp_path_factory.mktemp("exports")
        shutil.copytree(exported(1.0), exports / "teacher")
        shutil.copytree(exported(scale), exports / "distill")
        row: dict[str, Any] = {
            "accuracy": 0.9, "agreement": 1.0, "latency_ms": {"1": {"p50": 0.1}}, "threads": 1, "bytes": 30_000,
            "drops": {"accuracy": {"drop": 0.01, "ci": [0.005, 0.015]}}, "speedup": {"1": 2.0},
            "speedup_ci": {"1": [1.9, 2.1]},
        }  # fmt: skip
        measured = {
            "machine": benchmark.machine(), "target": {"batch_sizes": [1]}, "stages": {"teacher": row, "distill": row},
        }  # fmt: skip
        document = copy.deepcopy(_document) | {"export": {"stages": ["teacher", "distill"]}, "budget": budget or {}}
        for stage in ("prune", "quantize", "factorize"):
            del document[stage]
        verdict = judge(params.parse(document).budget, measured, "distill")
        return build(target, exports, ["teacher", "distill"], measured, document, splits["validation"], verdict)

    return make


@pytest.fixture(scope="session")
def two_releases(make_release: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two releases that answer differently. Copy them before changing them."""
    folder = tmp_path_factory.mktemp("releases")
    make_release(folder / "one")
    make_release(folder / "two", scale=3.0)
    return folder / "one", folder / "two"


@pytest.fixture(scope="session")
def resealed() -> Callable[..., Path]:
    """Copy a release, let ``change(folder, card)`` alter it, and seal it anew: a release of another revision."""

    def copy_release(release: Path, target: Path, change: Callable[[Path, dict[str, Any]], None]) -> Path:
        with manifest.sealed(target) as scratch:
            shutil.copytree(release, scratch, dirs_exist_ok=True)
            card = manifest.read_json(scratch / "card.json")
            change(scratch, card)
            manifest.write_json(scratch / "card.json", card)
            (scratch / manifest.MANIFEST).unlink()
        return target

    return copy_release


@pytest.fixture(scope="session")
def many_release(
    two_releases: tuple[Path, Path], resealed: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A release of which any of several labels may be the answer, each above a threshold of its own."""
    thresholds = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999]
    return write_many_release(two_releases[0], tmp_path_factory.mktemp("many") / "release", resealed, thresholds)


@pytest.fixture(scope="session")
def text_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose raw input is text."""
    return write_text_release(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def pair_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose raw input is pairs of texts."""
    return write_text_release(tmp_path_factory.mktemp("pairs"), pair=True)
