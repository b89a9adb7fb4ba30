"""``slimline init --weights``: a file that holds a teacher, or what one is trained from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from slimline import params, project
from slimline.errors import ParamsError
from slimline.models.resnet import ResNet
from slimline.project import Own
from tests.encoders import LABELS, configuration, texts, write_table, write_tokenizer
from tests.tasks.test_labelled_images import LABELS as COLOURS
from tests.tasks.test_labelled_images import write_folders

pytest.importorskip("transformers")


def laid_out(own: Own, root: Path) -> tuple[dict[str, Any], str]:
    """Return params.yaml's content, and what ``init`` says of the weights."""
    text = project.own_params(own, root, "int8", None)
    document: dict[str, Any] = yaml.safe_load(text)
    params.parse(document)
    (said,) = (line for line in project._notes(text, "", own) if str(own.weights) in line)
    return document, said


def resnet(classes: int) -> nn.Module:
    torch.manual_seed(0)
    return ResNet(classes=classes, channels=3)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    write_folders(tmp_path / "pictures", 20)
    return tmp_path / "pictures"


def test_a_file_with_the_whole_net_is_measured(pictures: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.ckpt"
    lightning = {f"net.{name}": each for name, each in resnet(len(COLOURS)).state_dict().items()}
    torch.save({"state_dict": lightning, "epoch": 3}, file)
    document, said = laid_out(Own("resnet", pictures, weights=file), tmp_path)
    assert document["teacher"]["weights"] == "net.ckpt"
    assert document["teacher"]["training"] is None
    assert said.endswith(f"it is measured as it is; its outputs are taken for {', '.join(COLOURS)} in this order")


def test_a_net_with_a_head_for_other_labels_is_trained_from(pictures: Path, tmp_path: Path) -> None:
    torch.save(resnet(1000).state_dict(), tmp_path / "imagenet.pt")
    document, said = laid_out(Own("resnet", pictures, weights=tmp_path / "imagenet.pt"), tmp_path)
    assert document["teacher"]["weights"] == "imagenet.pt"
    assert document["teacher"]["training"]["epochs"] > 0
    assert said.endswith("(2 tensors in all): the teacher is trained from it")


@pytest.mark.parametrize(("kept", "pooling"), [("", "head"), ("bert.", "mean")], ids=["with its head", "without"])
def test_an_encoder_in_a_file(tmp_path: Path, kept: str, pooling: str) -> None:
    from transformers import BertForSequenceClassification

    folder, file = tmp_path / "m", tmp_path / "best.pt"
    network = BertForSequenceClassification(configuration(num_labels=len(LABELS), max_position_embeddings=64))
    network.config.save_pretrained(folder)
    write_tokenizer(folder)
    state = {name.removeprefix(kept): each for name, each in network.state_dict().items() if name.startswith(kept)}
    torch.save(state, file)
    own = Own(str(folder), write_table(tmp_path / "t.csv", texts(60)), weights=file)
    document, said = laid_out(own, tmp_path)
    assert document["teacher"]["model"]["args"]["pooling"] == pooling
    assert (document["teacher"]["training"] is None) == (pooling == "head")
    assert document["teacher"]["weights"] == "best.pt"
    assert ("measured as it is" if pooling == "head" else "trained from it") in said


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file; a state dict, a checkpoint or safetensors is expected"),
        (lambda path: path.write_text("no weights"), "can't be read as weights"),
        (lambda path: torch.save(nn.Linear(2, 2).state_dict(), path), "none of its tensors"),
    ],
    ids=["missing", "no weights", "another model's"],
)
def test_what_are_no_weights_of_the_model_is_told(pictures: Path, tmp_path: Path, write: Any, message: str) -> None:
    write(tmp_path / "net.pt")
    with pytest.raises(ParamsError, match=rf"^--weights: .*net\.pt: .*{message}"):
        laid_out(Own("resnet", pictures, weights=tmp_path / "net.pt"), tmp_path)
