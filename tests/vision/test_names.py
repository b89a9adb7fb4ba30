"""``timm:NAME`` and ``torchvision:NAME``: names, weights that come in once, artifacts that fetch nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from slimline import artifact, plugins
from slimline.artifact import Artifact, Named
from slimline.errors import ArtifactError, ParamsError, PluginError
from slimline.project import own_project
from slimline.project.own_project import Own
from slimline.tasks.labelled_images import images
from slimline.teachers import checkpoints
from tests.pictures import LABELS, write_folders

TIMM, TORCHVISION = "timm:test_efficientnet.r160_in1k", "torchvision:mobilenet_v3_small"
COMMIT = "0" * 40


def built(name: str, **args: Any) -> Any:
    return plugins.find("models", name)(**args)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, dict[str, torch.Tensor]]]:
    """Return the weights that stand in the caches of both libraries, as a download leaves them there."""
    torch.manual_seed(7)
    published = {name: built(name, classes=1000).body.state_dict() for name in (TIMM, TORCHVISION)}
    repository = tmp_path / "hub" / "models--timm--test_efficientnet.r160_in1k"
    folder = repository / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    save_file(published[TIMM], folder / "model.safetensors")
    checkpoints_folder = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints_folder.mkdir(parents=True)
    torch.save(published[TORCHVISION], checkpoints_folder / "mobilenet_v3_small-047dcff4.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return published


@pytest.mark.parametrize(
    ("name", "head"),
    [(TIMM, ["body.classifier.weight", "body.classifier.bias"]),
     (TORCHVISION, ["body.classifier.3.weight", "body.classifier.3.bias"])],
    ids=["timm", "torchvision"],
)  # fmt: skip
def test_weights_of_the_library_come_in_but_for_another_classifier(
    name: str, head: list[str], hub: dict[str, dict[str, torch.Tensor]]
) -> None:
    torch.manual_seed(0)
    model = built(name, classes=3)
    fresh = {each: tensor.clone() for each, tensor in model.state_dict().items()}
    assert checkpoints.lacking(model, "pretrained") == head
    assert all(torch.equal(tensor, fresh[each]) for each, tensor in model.state_dict().items()), "nothing is fetched"
    assert checkpoints.load(model, "pretrained") == head
    for each, tensor in model.state_dict().items():
        expected = fresh[each] if each in head else hub[name][each.removeprefix("body.")]
        assert torch.equal(tensor, expected), each
    whole = built(name, classes=1000)
    assert checkpoints.load(whole, "pretrained") == []


@pytest.mark.parametrize("name", [TIMM, TORCHVISION], ids=["timm", "torchvision"])
def test_a_state_dict_of_the_library_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    given = built(name, classes=3).body.state_dict()
    torch.save(given, tmp_path / "weights.pt")
    model = built(name, classes=3)
    assert checkpoints.load(model, str(tmp_path / "weights.pt")) == []
    assert all(torch.equal(tensor, given[each]) for each, tensor in model.body.state_dict().items())


@pytest.mark.parametrize("name", [TIMM, TORCHVISION], ids=["timm", "torchvision"])
def test_an_artifact_needs_no_trust_and_no_weights_but_its_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Named("images", {"data": "unread", "labels": LABELS, "size": [64, 64]})
    model = built(name, classes=3).eval()
    artifact.save(tmp_path / "teacher", model, Artifact(task, Named(name, {"classes": 3}), [], "teacher"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    loaded, _ = artifact.load(tmp_path / "teacher", task=images(**task.args))
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded(x), model(x))


def test_weights_that_cannot_be_fetched_are_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = built(TIMM, classes=3)
    before = {each: tensor.clone() for each, tensor in model.state_dict().items()}
    with pytest.raises(ArtifactError, match=r"^pretrained: ") as caught:
        checkpoints.load(model, "pretrained")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[each]) for each, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        (TIMM, "imagenet", "imagenet: no such file; 'pretrained' takes the library's own weights"),
        ("timm:convnext_zepto_rms.untrained", "pretrained", "has no such model"),
        ("timm:test_efficientnett", "pretrained", "no such model. Did you mean 'test_efficientnet"),
        ("timm:hf-hub:timm/test_vit.r160_in1k", "pretrained", "has no such model"),
        ("timm:", "pretrained", "has no such model"),
        ("torchvision:vit_b_33", "pretrained", "no network of torchvision for classes. Did you mean 'vit_b_32'"),
        ("torchvision:fasterrcnn_resnet50_fpn", "pretrained", "no network of torchvision for classes"),
    ],
)
def test_what_there_is_not_is_named(name: str, source: str, message: str) -> None:
    with pytest.raises((ParamsError, ArtifactError)) as caught:
        checkpoints.lacking(built(name, classes=3), source)
    assert message in str(caught.value)


@pytest.mark.parametrize("args", [{"pretrained": True}, {"nonsense": 1}])
def test_other_arguments_are_refused_by_key(args: dict[str, Any]) -> None:
    task = images(data="unread", labels=LABELS)
    with pytest.raises((ParamsError, ArtifactError), match=r"pretrained: weights are the teacher's|nonsense"):
        artifact.build_model(task, Named(TIMM, {"classes": 3, **args}), "params.yaml: teacher.model")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        (TIMM, "checkpoint_path", "w.pt"),
        (TIMM, "pretrained_cfg", {"file": "w.pt"}),
        (TIMM, "pretrained_cfg_overlay", {"file": "w.pt"}),
        (TIMM, "pretrained_model_args", {}),
        (TIMM, "cache_dir", "."),
        (TORCHVISION, "weights", "DEFAULT"),
        (TORCHVISION, "weights_backbone", "DEFAULT"),
        (TORCHVISION, "pretrained", True),
    ],
)
def test_no_argument_of_an_artifact_opens_a_file_beside_it(
    name: str, key: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What loads an artifact reads nothing but it, whatever it says of its model."""
    monkeypatch.chdir(tmp_path)
    model = built(name, classes=3).eval()
    torch.save(model.body.state_dict(), "w.pt")
    task = Named("images", {"data": "unread", "labels": LABELS, "size": [64, 64]})
    artifact.save(tmp_path / "a", model, Artifact(task, Named(name, {"classes": 3, key: value}), [], "teacher"))
    with pytest.raises(
        (ParamsError, ArtifactError), match=rf"{name}: args\.{key}: weights are the teacher's"
    ) as caught:
        artifact.load(tmp_path / "a", task=images(**task.args))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "size", "weights"),
    [("timm:test_vit", [160, 160], "pretrained"), ("torchvision:efficientnet_b0", [224, 224], "pretrained"),
     ("timm:test_vit2.untrained", None, None)],
)  # fmt: skip
def test_init_takes_size_and_scale_along(
    name: str, size: list[int] | None, weights: str | None, tmp_path: Path
) -> None:
    import yaml

    folder = write_folders(tmp_path / "pictures", 2)
    if size is None:
        with pytest.raises(ParamsError, match="has no such model"):
            own_project.params_text(Own(name, folder), tmp_path, "int8", None)
        return
    document = yaml.safe_load(own_project.params_text(Own(name, folder), tmp_path, "int8", None))
    assert document["teacher"]["model"] == {"name": name, "args": {"classes": 3}}
    assert document["teacher"]["weights"] == weights
    assert document["task"]["args"]["size"] == size
    assert len(document["task"]["args"]["mean"]) == len(document["task"]["args"]["std"]) == 3


def test_init_builds_a_vit_for_the_size_that_is_asked_for(tmp_path: Path) -> None:
    import yaml

    own = Own("timm:test_vit3", write_folders(tmp_path / "pictures", 2), size=(64, 64))
    document = yaml.safe_load(own_project.params_text(own, tmp_path, "int8", None))
    assert document["teacher"]["model"]["args"] == {"classes": 3, "img_size": [64, 64]}
    assert document["task"]["args"]["size"] == [64, 64]


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_library_that_was_built_for_another_torch_says_so(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ParamsError, match=f"{library}:x: {library} .*pip install"):
        built(f"{library}:x")


def test_only_families_that_are_registered_go_untrusted() -> None:
    assert plugins.find("models", TIMM, trust=()).func.__module__ == "slimline.models.timm"
    with pytest.raises(PluginError, match="would run code that is not registered"):
        plugins.find("models", "timmy:net", trust=())
