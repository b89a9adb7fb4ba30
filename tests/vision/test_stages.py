"""Five families of two libraries through every stage, by the stages' own scripts, as docs/models.md says."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml

from slimline import artifact, manifest, params, stage
from slimline.errors import MethodError
from slimline.pruning import masks
from slimline.quantization.quantizers import quantizers
from slimline.stage import Stage, compression
from slimline.task import call, tensors
from tests.graphs import counts
from tests.pictures import LABELS, write_folders
from tests.test_stage import _no_curves

SIZE = 64
TRAINING = {"epochs": 1, "batch_size": 16, "lr": 0.001}
VIT = {"image_size": SIZE}
SMALL = {"model": {"name": "timm:test_efficientnet", "args": {"classes": 3}}}
# the network, its arguments, and what the student is: some of its blocks, or a smaller network
NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "timm:test_convnext": ({}, {"keep": {"body.stages.1.blocks": [0]}}),
    "timm:mobilenetv3_small_050": ({}, {"keep": {"body.blocks.2": [0, 2]}}),
    "timm:test_vit": ({"img_size": SIZE}, {"keep": {"body.blocks": [0, 2, 5]}}),
    "timm:efficientnet_b0": ({}, {"keep": {"body.blocks.2": [0], "body.blocks.4": [0, 2]}}),
    "timm:regnety_002": ({}, SMALL),
    "torchvision:convnext_tiny": ({}, {"keep": {"body.features.5": [0, 8], "body.features.7": [0]}}),
    "torchvision:mobilenet_v3_small": ({}, {"keep": {"body.features": [0, 1, 2, 4, 5, 7, 9, 10, 12]}}),
    "torchvision:vit_b_32": (VIT, {"keep": {"body.encoder.layers": [0, 11]}}),
    "torchvision:efficientnet_b0": ({}, {"keep": {"body.features.3": [0], "body.features.5": [0, 2]}}),
    "torchvision:regnet_y_400mf": ({}, {"keep": {"body.trunk_output.block4": [0, 5]}}),
}
Run = Callable[[str], None]


def script(project: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{name}_script", project / "stages" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def document(name: str, args: dict[str, Any], student: dict[str, Any]) -> dict[str, Any]:
    """Return params.yaml for a network that learns colours."""
    none = {"epochs": 0, "lr": 0.001, "teacher": "teacher"}
    return {
        "task": {"name": "images", "args": {"data": "pictures", "labels": LABELS, "size": [SIZE, SIZE]}},
        "seed": 0,
        "teacher": {"model": {"name": name, "args": {"classes": 3, **args}}, "training": TRAINING},
        "distill": {"from": "teacher", "teacher": "teacher", "training": TRAINING, **student},
        "prune": {
            "from": "distill",
            "methods": [{"name": "structured", "ratio": 0.25, "multiple": 4}, {"name": "magnitude", "ratio": 0.5}],
            "recovery": {**TRAINING, "teacher": "teacher"},
        },
        "quantize": {"from": "prune", "methods": [{"name": "linear", "bits": 8}], "recovery": none},
        "factorize": {
            "from": "quantize", "recovery": none,
            "methods": [{"name": "svd", "rank": {"ratio": 0.25}, "refit": False}],
        },
        "export": {"stages": ["teacher", "quantize", "factorize"], "samples": 12, "min_agreement": 0.9},
    }  # fmt: skip


@pytest.fixture
def run(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a stage of the params.yaml in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "curves", _no_curves)  # DVCLive wants a git repository
    write_folders(tmp_path / "pictures", 30)

    def one(name: str) -> None:
        kind, _, made = name.partition("@")
        work = script(project, kind).main if kind in {"teacher", "distill", "export"} else compression
        work(Stage(made or name, params.load(), None))

    return one


def loaded(name: str) -> Any:
    return artifact.load(Path("artifacts") / name)[0]


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_goes_through_every_stage(name: str, run: Run) -> None:
    args, student = NETWORKS[name]
    Path("params.yaml").write_text(yaml.safe_dump(document(name, args, student)))
    for each in ("teacher", "distill", "prune", "quantize", "factorize"):
        run(each)
    teacher, small, pruned, quantized, factorized = (
        loaded(each) for each in ("teacher", "distill", "prune", "quantize", "factorize")
    )
    assert size(small) < size(teacher)
    assert size(pruned) < size(small)
    shares = [float(masks.live(layer).float().mean()) for layer in masks.masked(pruned).values()]
    assert min(shares) < 0.9
    assert len(quantizers(quantized)) > 5
    assert size(factorized) < size(quantized)
    for each in ("teacher", "quantize", "factorize"):
        run(f"export@{each}")
        facts = manifest.read_json(Path("exports", each, "facts.json"))
        with torch.inference_mode():
            spread = float(call(loaded(each), tensors(rows())).std())
        assert facts["parity"]["max_error"] < (0.001 if each == "teacher" else 0.25) * max(spread, 0.01)
    assert counts(onnx.load("exports/teacher/model.onnx"))["QuantizeLinear"] == 0
    assert counts(onnx.load("exports/quantize/model.onnx"))["QuantizeLinear"] > 5
    # nn.MultiheadAttention, half of what is left of the vit_b_32, stays in floating point
    assert Path("exports/quantize/model.onnx").stat().st_size < 0.6 * 4 * size(pruned)


def rows() -> dict[str, Any]:
    """Return the pictures that an export was held against."""
    task = artifact.build_task(artifact.Named("images", params.load().task.args), "here")
    return {name: np.asarray(array) for name, array in task.splits()["validation"].head(12).inputs.items()}


@pytest.mark.parametrize(
    ("name", "section", "message"),
    [
        (
            "timm:regnety_002",
            {"distill": {"keep": {"body.s2": [0]}}},
            "distill.keep: 'body.s2' is no list of blocks",
        ),
        ("timm:test_vit", {"prune": {"methods": [{"name": "heads"}]}}, "heads found no heads in this model"),
        ("torchvision:vit_b_32", {"prune": {"methods": [{"name": "heads"}]}}, "heads found no heads in this model"),
        ("timm:test_efficientnet", {"prune": {"methods": [{"name": "heads"}]}}, "heads found no heads in this model"),
        (
            "timm:test_efficientnet",
            {"prune": {"methods": [{"name": "neurons"}]}},
            "neurons found no neurons in this model",
        ),
        ("timm:regnety_002", {"prune": {"methods": [{"name": "vocabulary"}]}}, "vocabulary"),
    ],
)
def test_what_does_not_go_is_refused_in_a_line(name: str, section: dict[str, Any], message: str, run: Run) -> None:
    args = NETWORKS.get(name, ({}, {}))[0]
    settings = document(name, args, {})
    ((key, keys),) = section.items()
    settings[key] = {**settings[key], "from": "teacher", **keys}
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    run("teacher")
    with pytest.raises(MethodError) as caught:
        run(key)
    assert str(caught.value).startswith(f"params.yaml: {key}.")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
