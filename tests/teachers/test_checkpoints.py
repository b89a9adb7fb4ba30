"""Teachers that exist: each in the form in which its framework really leaves it."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from slimline.errors import ArtifactError, DataError
from slimline.models.cnn import Cnn
from slimline.teachers import checkpoints, label_order
from tests.encoders import configuration, write_tokenizer

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def trained() -> Cnn:
    torch.manual_seed(5)
    return Cnn(width=4)


def lightning(model: nn.Module, prefix: str) -> dict[str, Any]:
    """Return what pytorch_lightning's ModelCheckpoint pickles (2.x), for a module that keeps its net under a name."""
    state = OrderedDict((f"{prefix}{name}", tensor) for name, tensor in model.state_dict().items())
    state["loss_weight"] = torch.ones(10)
    optimizer = torch.optim.AdamW(model.parameters())
    return {
        "epoch": 3, "global_step": 120, "pytorch-lightning_version": "2.5.2", "state_dict": state, "loops": {},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.9), "dirpath": "x"}},
        "optimizer_states": [optimizer.state_dict()], "lr_schedulers": [], "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 1e-3, "width": 4},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("state.pt", lambda m: m.state_dict()),
        ("checkpoint.pth", lambda m: {"model": m.state_dict(), "epoch": 4}),
        ("parallel.pt", lambda m: {f"module.{k}": v for k, v in m.state_dict().items()}),
        ("last.ckpt", lambda m: lightning(m, "model.")),
        ("compiled.ckpt", lambda m: lightning(m, "net._orig_mod.")),
    ],
)
def test_weights_come_in_as_they_were_saved(trained: Cnn, tmp_path: Path, name: str, wrap: Any) -> None:
    torch.save(wrap(trained), tmp_path / name)
    fresh = Cnn(width=4)
    assert checkpoints.load(fresh, str(tmp_path / name)) == []
    for key, tensor in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], tensor), key


@pytest.mark.parametrize("prefix", ["", "model."])
def test_safetensors_of_a_file_or_a_folder(trained: Cnn, tmp_path: Path, prefix: str) -> None:
    save_file({f"{prefix}{k}": v.contiguous() for k, v in trained.state_dict().items()}, tmp_path / "model.safetensors")
    for source in (tmp_path / "model.safetensors", tmp_path):
        fresh = Cnn(width=4)
        assert checkpoints.load(fresh, str(source)) == []
        assert torch.equal(fresh.state_dict()["0.weight"], trained.state_dict()["0.weight"])


def test_a_checkpoint_that_lightning_wrote_answers_as_it_did() -> None:
    """tests/fixtures/lightning_checkpoint.py made it: a Trainer's ModelCheckpoint, the network under ``net.``."""
    model = Cnn(width=4)
    assert checkpoints.load(model, str(FIXTURES / "lightning.ckpt")) == []
    found = np.load(FIXTURES / "lightning.npz")
    with torch.inference_mode():
        answers = model.eval()(torch.from_numpy(found["image"]))
    np.testing.assert_allclose(answers.numpy(), found["logits"], atol=1e-5)


def test_a_checkpoint_that_a_trainer_wrote_answers_as_it_did(tmp_path: Path) -> None:
    """Of transformers: the folder ``checkpoint-N`` of a run in progress, optimizer and arguments in it."""
    transformers = pytest.importorskip("transformers")
    from slimline.models.hf_encoder import HfEncoder

    write_tokenizer(tmp_path / "model")
    model = transformers.BertForSequenceClassification(configuration(num_labels=3))
    rows = [{"input_ids": [2, 4 + at % 20, 5, 3], "labels": at % 3} for at in range(64)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "runs"), max_steps=6, per_device_train_batch_size=16, learning_rate=1e-3,
        report_to=[], save_strategy="steps", save_steps=3, use_cpu=True, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    folder = tmp_path / "runs" / "checkpoint-6"
    assert {"optimizer.pt", "training_args.bin", "trainer_state.json"} <= {path.name for path in folder.iterdir()}
    expected = trainer.predict(rows[:8]).predictions
    taken = HfEncoder(str(folder), pooling="head", classes=3)
    assert checkpoints.load(taken, str(folder)) == []
    with torch.inference_mode():
        answers = taken.eval()(torch.tensor([row["input_ids"] for row in rows[:8]]))
    np.testing.assert_allclose(answers.numpy(), expected, atol=1e-5)
    earlier = HfEncoder(str(folder), pooling="head", classes=3)
    checkpoints.load(earlier, str(tmp_path / "runs" / "checkpoint-3"))
    with torch.inference_mode():
        assert not np.allclose(earlier.eval()(torch.tensor([rows[0]["input_ids"]])).numpy(), expected[:1], atol=1e-5)


class Holder(nn.Module):
    """A model that holds another one whole, and fetches its weights by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Cnn(width=4)
        self.fetched = 0

    def lacks(self, source: str) -> list[str]:
        return [f"{source}.weight"]

    def load_pretrained(self, source: str) -> list[str]:
        self.fetched += 1
        return self.lacks(source)


@pytest.mark.parametrize("prefix", ["", "body.", "net.", "net.body."])
def test_weights_of_a_network_that_another_holds(trained: Cnn, tmp_path: Path, prefix: str) -> None:
    torch.save({f"{prefix}{k}": v for k, v in trained.state_dict().items()}, tmp_path / "inner.pt")
    model = Holder()
    assert checkpoints.load(model, str(tmp_path / "inner.pt")) == []
    assert all(torch.equal(each, trained.state_dict()[name]) for name, each in model.body.state_dict().items())


def test_what_would_be_lacking_is_told_without_fetching(trained: Cnn, tmp_path: Path) -> None:
    model = Holder()
    assert checkpoints.lacking(model, "published") == ["published.weight"]
    assert model.fetched == 0
    torch.save({name: each for name, each in trained.state_dict().items() if "11" not in name}, tmp_path / "body.pt")
    assert checkpoints.lacking(model, str(tmp_path / "body.pt")) == ["body.11.weight", "body.11.bias"]


def test_what_is_missing_is_named(trained: Cnn, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in trained.state_dict().items() if not name.startswith("11.")}
    torch.save(state, tmp_path / "body.pt")
    assert checkpoints.load(Cnn(width=4), str(tmp_path / "body.pt")) == ["11.weight", "11.bias"]


@pytest.mark.parametrize(
    ("gone", "first", "count"),
    [("3.", "3.weight", 1), (("0.", "1.", "3.", "4.", "6.", "7."), "0.weight", 15), (("7.", "11."), "7.weight", 6)],
    ids=["a layer", "all but the last", "the last two"],
)
def test_a_part_of_a_network_is_no_start(trained: Cnn, tmp_path: Path, gone: Any, first: str, count: int) -> None:
    state = trained.state_dict()
    torch.save({name: tensor for name, tensor in state.items() if not name.startswith(gone)}, tmp_path / "part.pt")
    message = rf"^\S+part\.pt: it has no {first} \({count} of {len(state)} tensors are missing\), and .* a last layer"
    with pytest.raises(ArtifactError, match=message):
        checkpoints.load(Cnn(width=4), str(tmp_path / "part.pt"))


@pytest.mark.parametrize("family", ["Bert", "Electra", "DistilBert", "DebertaV2", "ModernBert"])
def test_a_whole_head_of_an_encoder_may_be_missing(tmp_path: Path, family: str) -> None:
    """With the pooler that some have inside the encoder; the same from a folder."""
    pytest.importorskip("transformers")
    from slimline.models.hf_encoder import HfEncoder
    from tests.encoders import write_family

    folder = write_family(tmp_path / "m", family, "Model")
    model = HfEncoder(folder, pooling="head", classes=3)
    encoder = {name: each for name, each in model.state_dict().items() if f".{model.body.base_model_prefix}." in name}
    torch.save({name: each for name, each in encoder.items() if ".pooler." not in name}, tmp_path / "encoder.pt")
    missing = checkpoints.load(model, str(tmp_path / "encoder.pt"))
    assert missing == [name for name in model.state_dict() if name not in encoder or ".pooler." in name]
    fresh = checkpoints.load(model, folder)
    assert fresh == [name for name in missing if ".bert.pooler." not in name], "the folder has BERT's pooler"
    torch.save(dict(list(encoder.items())[2:]), tmp_path / "part.pt")
    with pytest.raises(ArtifactError, match=rf"part\.pt: it has no {next(iter(encoder))} "):
        checkpoints.load(model, str(tmp_path / "part.pt"))


def test_counts_of_batches_are_no_weights(tmp_path: Path) -> None:
    """Files of other frameworks, and old ones, have none."""
    norm = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    state = {name: each for name, each in norm.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "net.pt")
    assert checkpoints.load(norm, str(tmp_path / "net.pt")) == []


class Foreign:
    """What a pickle might run."""


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: torch.save(Cnn(width=8).state_dict(), p), r"tensor 0.weight: \[8, 1, 3, 3\], the model takes \[4"),
        (lambda p: torch.save({"other": torch.ones(2)}, p), r"none of its tensors \(other, …\) belongs to the model"),
        (lambda p: torch.save({"state_dict": {}, "x": Foreign()}, p), "save its state_dict alone"),
        (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "can't be read as weights|no tensors by name"),
        (lambda p: p.write_bytes(b"nothing"), "can't be read as weights"),
        (lambda p: None, "no such file or folder of weights"),
    ],
    ids=["another width", "another model", "objects", "no tensors", "damaged", "missing"],
)
def test_what_does_not_fit_is_named(tmp_path: Path, write: Any, message: str) -> None:
    path = tmp_path / "weights.pt"
    write(path)
    with pytest.raises(ArtifactError, match=message) as caught:
        checkpoints.load(Cnn(width=4), str(path))
    assert "weights.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "blocked"),
    [
        (lambda: {"state_dict": Cnn(width=4).state_dict(), "best": np.float64(0.5)}, r"numpy\S*\.scalar"),
        (lambda: {"state_dict": Cnn(width=4).state_dict(), "mean": np.zeros(3)}, r"numpy\S*\._reconstruct"),
        (lambda: Cnn(width=4), r"slimline\.models\.cnn\.Cnn"),
        (lambda: {"state_dict": {}, "args": Path("x")}, r"pathlib\S*\.\w*Path"),
    ],
    ids=["a scalar of numpy", "an array", "a whole module", "a path"],
)
def test_what_keeps_a_pickle_from_being_read_is_named(tmp_path: Path, content: Any, blocked: str) -> None:
    torch.save(content(), tmp_path / "best.ckpt")
    said = rf"^\S+best\.ckpt: it holds {blocked} beside tensors, and no objects are made: save its state_dict alone$"
    with pytest.raises(ArtifactError, match=said):
        checkpoints.load(Cnn(width=4), str(tmp_path / "best.ckpt"))


LABELS = ["acq", "earn", "ship"]


def test_a_teacher_that_knows_its_labels_passes() -> None:
    targets = np.arange(60) % 3
    label_order.check(np.where(np.arange(60) % 10 == 0, 0, targets), targets, LABELS, "params.yaml")


def test_labels_in_another_order_are_found() -> None:
    targets = np.arange(60) % 3
    answers = np.array([2, 0, 1])[targets]  # output 2 means acq, 0 earn, 1 ship
    message = r"0.0% of 60 validation answers.*in the order \['earn', 'ship', 'acq'\] 100.0% would be.*task.args.labels"
    with pytest.raises(DataError, match=message):
        label_order.check(answers, targets, LABELS, "params.yaml: teacher.weights")


def test_a_constant_answer_is_at_chance() -> None:
    targets = np.arange(60) % 3
    with pytest.raises(DataError, match="no other order of labels helps"):
        label_order.check(np.zeros(60), targets, LABELS, "params.yaml")


def test_few_rows_prove_nothing() -> None:
    label_order.check(np.zeros(9), np.arange(9) % 3, LABELS, "params.yaml")


def test_a_last_layer_for_other_outputs_is_to_be_learnt(tmp_path: Path) -> None:
    torch.save(Cnn(classes=1000).state_dict(), tmp_path / "imagenet.pt")
    model = Cnn(classes=10)
    fresh = [name for name in model.state_dict() if name.startswith("11.")]
    assert checkpoints.load(model, str(tmp_path / "imagenet.pt")) == fresh
