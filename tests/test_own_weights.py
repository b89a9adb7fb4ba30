"""``slimline init --weights``: a file that holds a teacher, or what one is trained from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from slimline import params
from slimline.errors import ArtifactError, ParamsError
from slimline.models.hf_encoder import HfEncoder
from slimline.models.resnet import ResNet
from slimline.project import own_project
from slimline.project.own_project import Own
from slimline.project.own_weights import Weights
from slimline.teachers import checkpoints
from tests.encoders import LABELS, configuration, texts, write_table, write_tokenizer
from tests.pictures import LABELS as COLOURS
from tests.pictures import write_folders

pytest.importorskip("transformers")


def laid_out(own: Own, root: Path) -> tuple[dict[str, Any], str]:
    """Return params.yaml's content, and what ``init`` says of the weights."""
    text = own_project.params_text(own, root, "int8", None)
    document: dict[str, Any] = yaml.safe_load(text)
    params.parse(document)
    (said,) = (line for line in own_project.notes(text, own) if str(own.weights) in line)
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


def test_a_file_is_read_once_whatever_is_looked_for_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, read, reads = tmp_path / "best.pt", checkpoints.read, []

    def counted(path: Path) -> dict[str, torch.Tensor]:
        reads.append(path)
        return read(path)

    torch.save(encoder_in(tmp_path / "m"), file)
    monkeypatch.setattr(checkpoints, "read", counted)
    _, said = laid_out(Own(str(tmp_path / "m"), write_table(tmp_path / "t.csv", texts(60)), weights=file), tmp_path)
    assert said.endswith("the teacher is trained from it")
    assert reads == [file]


BESIDE = [
    ("encoder.", "classifier"), ("net.encoder.", "net.classifier"), ("net.encoder.", "classifier"),
    ("encoder._orig_mod.", "classifier"), ("bert.", "classifier"), ("backbone.", "head"),
    ("model.backbone.", "model.head"), ("backbone.", "head.1"),
]  # fmt: skip


@pytest.mark.parametrize(("net", "head"), BESIDE, ids=[f"{net}* + {head}.*" for net, head in BESIDE])
def test_an_encoder_with_a_head_beside_it_is_the_whole_model(tmp_path: Path, net: str, head: str) -> None:
    """What a LightningModule written by hand holds: an encoder under a name, and a Linear under another."""
    file = tmp_path / "last.ckpt"
    layer, own = nn.Linear(32, len(LABELS)), encoder_in(tmp_path / "m")
    state = {f"{net}{name}": each for name, each in own.items()}
    state |= {f"{head}.{name}": each for name, each in layer.state_dict().items()}
    torch.save({"state_dict": state | {"criterion.weight": torch.ones(len(LABELS))}, "epoch": 3}, file)
    asked = Own(str(tmp_path / "m"), write_table(tmp_path / "t.csv", texts(60)), weights=file)
    document, said = laid_out(asked, tmp_path)
    assert document["teacher"]["model"]["args"]["pooling"] == "mean"
    assert document["teacher"]["training"] is None
    assert "has all of the model" in said
    assert "mean pooling (pooling: cls in params.yaml, if not)" in said
    model = HfEncoder(str(tmp_path / "m"), classes=len(LABELS))
    assert checkpoints.load(model, str(file)) == []
    assert torch.equal(model.classifier.weight, layer.weight)
    assert all(torch.equal(each, own[name]) for name, each in model.body.state_dict().items())


HEADS = {
    "two of the shape": {"head": (32, 3), "aux": (32, 3)}, "more layers": {"head.0": (32, 32), "head.2": (32, 3)},
    "a layer before it": {"projection": (32, 32), "out": (32, 3)},
    "another width": {"classifier": (64, 3)}, "of a pretraining": {"cls.seq_relationship": (32, 3)},
}  # fmt: skip


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_a_head_that_may_be_another_is_not_taken(tmp_path: Path, heads: dict[str, tuple[int, int]]) -> None:
    state = {f"encoder.{name}": each for name, each in encoder_in(tmp_path / "m").items()}
    for head, sizes in heads.items():
        state |= {f"{head}.{name}": each for name, each in nn.Linear(*sizes).state_dict().items()}
    torch.save(state, tmp_path / "last.pt")
    model = HfEncoder(str(tmp_path / "m"), classes=3)
    assert checkpoints.load(model, str(tmp_path / "last.pt")) == ["classifier.weight", "classifier.bias"]


def encoder_in(folder: Path) -> dict[str, torch.Tensor]:
    """Save an encoder's configuration and tokenizer, and return the tensors of one."""
    from transformers import BertModel

    torch.manual_seed(7)
    network = BertModel(configuration(max_position_embeddings=64), add_pooling_layer=False)
    network.config.save_pretrained(folder)
    write_tokenizer(folder)
    found: dict[str, torch.Tensor] = network.state_dict()
    return found


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file; a state dict, a checkpoint or safetensors is expected"),
        (Path.mkdir, "a folder; give the file in it, or, where transformers saved it, --model"),
        (lambda path: path.write_text("no weights"), "can't be read as weights"),
        (lambda path: torch.save(nn.Linear(2, 2).state_dict(), path), "none of its tensors"),
        (lambda path: torch.save(resnet(3).fc.state_dict(prefix="fc."), path), r"it has no conv\.weight \(\d+ of \d+"),
    ],
    ids=["missing", "a folder", "no weights", "another model's", "a part"],
)
def test_what_are_no_weights_of_the_model_is_told(pictures: Path, tmp_path: Path, write: Any, message: str) -> None:
    write(tmp_path / "net.pt")
    with pytest.raises(ParamsError, match=rf"^--weights: .*net\.pt: .*{message}"):
        laid_out(Own("resnet", pictures, weights=tmp_path / "net.pt"), tmp_path)


def test_a_list_of_files_of_weights_is_told_with_the_folder_to_give(tmp_path: Path) -> None:
    """It was said to hold objects beside tensors."""
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{}")
    with pytest.raises(ParamsError, match=rf"index\.json: it lists files of weights .* give --model {tmp_path} alone$"):
        Weights(index).lacks("cnn", {})
    with pytest.raises(ArtifactError, match=f"give its folder, {tmp_path}$"):
        checkpoints.read(index)
