from __future__ import annotations

import copy
import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slimline import artifact, manifest
from slimline.artifact import Artifact, Named, build_task
from slimline.errors import ArtifactError, ParamsError, PluginError, SlimlineError
from slimline.method import Batches, Context, Edit, Method, compress
from slimline.methods.linear import Linear
from slimline.methods.magnitude import Magnitude
from slimline.methods.n_m import NM
from slimline.methods.structured import Structured
from slimline.methods.svd import Svd
from slimline.methods.symmetric import Symmetric
from slimline.methods.tucker2 import Tucker2
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet

Made = Callable[..., Context]
METHODS: dict[str, Method] = {
    "structured": Structured("l1", ratio=0.3, multiple=2),
    "linear": Linear(),
    "symmetric": Symmetric(),
    "svd": Svd(),
    "tucker2": Tucker2(),
    "magnitude": Magnitude(0.6),
    "n-m": NM(1, 2),
}
RANKS = {"svd": {"fc": [4], "stages.1.0.shortcut.0": [3]}, "tucker2": {"stages.2.0.conv2": [5, 4]}}
ORDERS = [
    order
    for quantize, factorize in itertools.product(("linear", "symmetric"), ("svd", "tucker2"))
    for order in itertools.permutations(("structured", quantize, factorize))
] + [
    ("svd", "tucker2", "structured", "linear"),
    ("linear", "structured", "linear", "tucker2", "svd", "structured"),
    ("magnitude", "structured", "linear", "tucker2", "svd"),
    ("linear", "n-m", "svd", "structured"),
    ("tucker2", "magnitude", "n-m", "symmetric"),
]


def reseal(directory: Path) -> None:
    """Write the manifest anew, as somebody would who changes an artifact on purpose."""
    manifest.write_json(directory / "manifest.json", {"format": 1, "files": manifest._listing(directory)})


def rewrite(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = directory / "model.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    reseal(directory)


@pytest.fixture
def saved(tmp_path: Path, cnn: Cnn, described: dict[str, Artifact]) -> Path:
    artifact.save(tmp_path / "made", cnn, described["cnn"])
    return tmp_path / "made"


def same(a: nn.Module, b: nn.Module) -> bool:
    """Return whether two models hold the same tensors, bit for bit and in one order."""
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_loading_gives_the_saved_model_bit_for_bit(
    tmp_path: Path, resnet: ResNet, batches: Batches, context: Made, images: Tensor, described: dict[str, Artifact],
    order: tuple[str, ...],
) -> None:  # fmt: skip
    model: nn.Module = resnet
    edits: list[Edit] = []
    for name in order:
        forced = (
            {name: {layer: ranks for layer, ranks in RANKS[name].items() if has(model, layer)}} if name in RANKS else {}
        )
        model, plan = compress(METHODS[name], model, batches, context(**forced))
        edits.append(plan.edit)
    artifact.save(tmp_path / "made", model, replace(described["resnet"], edits=edits))
    loaded, found = artifact.load(tmp_path / "made")
    assert found.edits == edits
    assert same(loaded, model)
    assert torch.equal(loaded(images), model.eval()(images))


def has(model: nn.Module, name: str) -> bool:
    """Return whether ``name`` is still a layer with a weight (not a sequence of factors)."""
    return hasattr(model.get_submodule(name), "weight")


def test_saving_is_repeatable(saved: Path, tmp_path: Path, cnn: Cnn, described: dict[str, Artifact]) -> None:
    assert artifact.save(tmp_path / "again", cnn, described["cnn"]) == manifest.digest(saved)


def test_an_artifact_is_model_weights_and_manifest(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["manifest.json", "model.json", "model.safetensors"]
    document = json.loads((saved / "model.json").read_text())
    assert set(document) == {"format", "task", "model", "edits", "stage", "parent", "teacher", "seed", "versions"}
    assert document["model"] == {"name": "cnn", "args": {"width": 8}}


def test_assets_travel_with_the_model(tmp_path: Path, cnn: Cnn, described: dict[str, Artifact]) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "words.txt").write_text("one")
    artifact.save(tmp_path / "made", cnn, described["cnn"], tmp_path / "assets")
    assert (tmp_path / "made" / "assets" / "words.txt").read_text() == "one"
    artifact.load(tmp_path / "made")


def test_a_loaded_model_evaluates_and_the_chance_of_others_is_untouched(saved: Path) -> None:
    state = torch.get_rng_state()
    model, _ = artifact.load(saved)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_description_survives(saved: Path, described: dict[str, Artifact]) -> None:
    assert artifact.read(saved) == described["cnn"]


# --- damaged and foreign artifacts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_changed_byte_is_named(saved: Path, name: str) -> None:
    raw = bytearray((saved / name).read_bytes())
    raw[-3] ^= 1
    (saved / name).write_bytes(raw)
    with pytest.raises(ArtifactError, match=f"made/{name}: wrong digest"):
        artifact.load(saved)


def drop_key(document: dict[str, Any]) -> None:
    del document["model"]


def add_named_key(document: dict[str, Any]) -> None:
    document["model"]["version"] = 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda d: d.update(format=2), "model.json: format 2 is newer", id="format"),
        pytest.param(drop_key, "model.json: not a model description", id="missing key"),
        pytest.param(add_named_key, "model.json: not a model description", id="unknown key"),
        pytest.param(lambda d: d["model"]["args"].update(wide=3), "model.json: model.args: ", id="argument"),
        pytest.param(lambda d: d["task"]["args"].update(wide=3), "model.json: task.args: ", id="task argument"),
        pytest.param(lambda d: d["edits"].append(1), "model.json: not a model description", id="edit"),
        pytest.param(
            lambda d: d["edits"].append({"method": "structured", "data": {"kept": {}}, "version": 2}),
            "model.json: edits.0: version 2 is newer", id="edit version",
        ),
        pytest.param(
            lambda d: d["edits"].append({"method": "structured", "data": {"kept": {}}, "version": "1"}),
            "model.json", id="edit version as text",
        ),
        pytest.param(
            lambda d: d["edits"].append({"method": "structured", "data": {}}),
            "edits.0: structured doesn't fit this model", id="edit without data",
        ),
        pytest.param(
            lambda d: d["edits"].append({"method": "structured", "data": {"kept": {"nowhere": {"out": [0]}}}}),
            "edits.0: structured doesn't fit this model", id="unknown layer",
        ),
        pytest.param(
            lambda d: d["edits"].append({"method": "structured", "data": {"kept": {"0": {"out": [0, 99]}}}}),
            "edits.0: structured doesn't fit this model", id="index out of range",
        ),
        pytest.param(
            lambda d: d["edits"].append({"method": "svd", "data": {"ranks": {"11": [1, 2]}}}),
            "edits.0: svd doesn't fit this model", id="ranks",
        ),
    ],
)  # fmt: skip
def test_a_wrong_description_is_named(saved: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    rewrite(saved, change)
    with pytest.raises(ArtifactError) as caught:
        artifact.load(saved)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "1", "null"])
def test_a_description_that_is_no_mapping_is_named(saved: Path, text: str) -> None:
    (saved / "model.json").write_text(text)
    reseal(saved)
    with pytest.raises(ArtifactError, match=r"model.json"):
        artifact.load(saved)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        pytest.param(lambda d: d["edits"].append({"method": "magic", "data": {}}), "edits.0: method", id="method"),
        pytest.param(lambda d: d["model"].update(name="magic"), "model.name", id="model"),
        pytest.param(lambda d: d["task"].update(name="magic"), "task", id="task"),
    ],
)
def test_an_unknown_plug_in_is_named(saved: Path, change: Callable[[dict[str, Any]], Any], key: str) -> None:
    rewrite(saved, change)
    with pytest.raises(SlimlineError) as caught:
        artifact.load(saved)
    assert f"model.json: {key}: no plug-in 'magic'" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda d: d["edits"].append({"method": "evil_one:Method", "data": {}}), id="method"),
        pytest.param(lambda d: d["model"].update(name="evil_one:Model"), id="model"),
        pytest.param(lambda d: d["task"].update(name="evil_one:Task"), id="task"),
    ],
)
def test_a_foreign_artifact_cannot_run_code(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], Any]
) -> None:
    (tmp_path / "evil_one.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rewrite(saved, change)
    with pytest.raises(PluginError, match=r"would run code that is not registered; .* add it to trust: in params.yaml"):
        artifact.load(saved)


def test_trusted_code_runs(saved: Path, images: Tensor, cnn: Cnn) -> None:
    rewrite(saved, lambda document: document["model"].update(name="slimline.models.cnn:Cnn"))
    with pytest.raises(PluginError, match="not registered"):
        artifact.load(saved)
    model, _ = artifact.load(saved, trust=["slimline.models.cnn:Cnn"])
    assert torch.equal(model(images), cnn(images))


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def wrong_shape(path: Path) -> None:
    tensors = load_file(path)
    save_file({**tensors, "11.bias": torch.zeros(11)}, path)


def wrong_dtype(path: Path) -> None:
    tensors = load_file(path)
    save_file({**tensors, "11.bias": torch.zeros(10, dtype=torch.float64)}, path)


def missing(path: Path) -> None:
    tensors = load_file(path)
    del tensors["11.bias"]
    save_file(tensors, path)


def unknown(path: Path) -> None:
    tensors = load_file(path)
    save_file({**tensors, "12.bias": torch.zeros(1)}, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(shorten, "not a safetensors file, or truncated", id="truncated"),
        pytest.param(empty, "not a safetensors file, or truncated", id="empty"),
        pytest.param(wrong_shape, "tensor 11.bias: torch.float32 [11], the model takes torch.float32 [10]", id="shape"),
        pytest.param(wrong_dtype, "tensor 11.bias: torch.float64 [10], the model takes torch.float32 [10]", id="dtype"),
        pytest.param(missing, "tensor 11.bias is missing (1 in all)", id="missing"),
        pytest.param(unknown, "tensor 12.bias has no place in the model (1 in all)", id="unknown"),
    ],
)
def test_wrong_weights_are_named(saved: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(saved / "model.safetensors")
    reseal(saved)
    with pytest.raises(ArtifactError) as caught:
        artifact.load(saved)
    assert str(caught.value).startswith(f"{saved / 'model.safetensors'}: ")
    assert message in str(caught.value)


def test_weights_that_are_not_there_are_named(cnn: Cnn, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"x.safetensors: not found"):
        artifact.load_weights(cnn, tmp_path / "x.safetensors")


def test_a_replayed_edit_changes_structure_alone(cnn: Cnn, batches: Batches, context: Made) -> None:
    _, plan = compress(Structured("l1", ratio=0.3, multiple=2), cnn, batches, context())
    expected, _ = compress(Structured("l1", ratio=0.3, multiple=2), cnn, batches, context())
    replayed = artifact.replay(copy.deepcopy(cnn), plan.edit, where="here")
    assert {k: v.shape for k, v in replayed.state_dict().items()} == {
        k: v.shape for k, v in expected.state_dict().items()
    }


@pytest.mark.parametrize("file", ["params.yaml", "artifacts/prune/model.json"])
def test_what_a_task_refuses_is_told_by_file_and_key(file: str) -> None:
    args = {"answer": "many", "data": "none.csv", "tokenizer": "none", "labels": ["a", "b"], "threshold": 2}
    with pytest.raises(ParamsError, match=rf"^{file}: task\.args\.threshold: 2: a number between 0 and 1"):
        build_task(Named("text", args), f"{file}: task")


def test_bad_model_arguments_of_params_name_their_key(context: Made) -> None:
    with pytest.raises(ArtifactError, match=r"params.yaml: teacher.model.args: depth: 9 is not one of 8, 10"):
        artifact.build_model(context().task, Named("resnet", {"depth": 9}), "params.yaml: teacher.model")


def test_what_a_model_refuses_is_told_by_file_and_key(context: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    named = Named("timm:convnext_atto", {"classes": 10})
    with pytest.raises(ParamsError, match=r"^params.yaml: teacher.model: timm:convnext_atto: timm .*; pip install"):
        artifact.build_model(context().task, named, "params.yaml: teacher.model")


MINE = """
SIZE = 3
class Settings:
    def __init__(self, size): pass
def made(**args): return args
"""


@pytest.mark.parametrize("name", ["SIZE", "Settings", "made"])
def test_a_name_that_leads_to_no_task_or_model_is_told_by_its_key(
    context: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Anything stands in a module, and what isn't asked for fails late, without a word of params.yaml."""
    (tmp_path / "mine_of_another_kind.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    named = Named(f"mine_of_another_kind:{name}")
    expected = (
        r": 'mine_of_another_kind:\w+' is no such plug-in: a class that extends {}, or a function that .* expected$"
    )
    with pytest.raises(PluginError, match=r"^params\.yaml: task\.name" + expected.format(r"slimline\.task\.Task")):
        build_task(named, "params.yaml: task")
    with pytest.raises(
        PluginError, match=r"^params\.yaml: teacher\.model\.name" + expected.format(r"torch\.nn\.Module")
    ):
        artifact.build_model(context().task, named, "params.yaml: teacher.model")
