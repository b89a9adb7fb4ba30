"""Hugging Face encoders: built from a configuration, saved with it, compressed, exported with two free axes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimline import artifact
from slimline.artifact import Artifact, Named
from slimline.decisions import Decisions
from slimline.errors import DataError, MethodError, ParamsError
from slimline.export.onnx import export
from slimline.method import Context, Edit, compress
from slimline.methods.drop_layers import DropLayers
from slimline.methods.float16 import Float16
from slimline.methods.linear import Linear
from slimline.methods.magnitude import Magnitude
from slimline.methods.neurons import Neurons
from slimline.methods.structured import Structured
from slimline.methods.svd import Svd
from slimline.params import Target
from slimline.quantizers import QuantizedLinear
from slimline.ranks import Ratio
from slimline.task import Split, tensors
from slimline.tasks.text import Text, text
from tests.encoders import LABELS, configuration, texts, write_encoder, write_table
from tests.graphs import counts

transformers = pytest.importorskip("transformers")

from slimline.models.hf_encoder import HfEncoder  # noqa: E402

ARGS: dict[str, Any] = {"source": "model", "classes": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder and a table."""
    root = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    write_encoder(root / "model")
    write_table(root / "t.csv", texts(240))
    return root


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def own_task(folder: Path) -> Text:
    return text(data=str(folder / "t.csv"), tokenizer=str(folder / "model"), labels=list(LABELS), max_length=16)


@pytest.fixture
def encoder(folder: Path) -> HfEncoder:
    torch.manual_seed(1)
    model = HfEncoder(**ARGS)
    model.load_pretrained("model")
    return model.eval()


def rows(*lengths: int) -> Tensor:
    """Return rows of so many tokens, filled up with 0."""
    chance = torch.Generator().manual_seed(0)
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for at, length in enumerate(lengths):
        ids[at, :length] = torch.randint(4, 60, (length,), generator=chance)
    return ids


@pytest.mark.parametrize("pooling", ["mean", "cls", "head"])
@torch.inference_mode()
def test_padding_changes_nothing(pooling: Any) -> None:
    model = HfEncoder(**ARGS, pooling=pooling).eval()
    ids = rows(5, 9)
    alone = model(ids[:1, :5])
    assert torch.allclose(model(ids)[:1], alone, atol=1e-5)
    assert model(ids).shape == (2, 3)


@torch.inference_mode()
def test_the_mean_is_over_tokens(encoder: HfEncoder) -> None:
    ids = rows(4, 7)
    hidden = encoder.body(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
    expected = encoder.classifier(torch.stack([hidden[0, :4].mean(0), hidden[1].mean(0)]))
    assert torch.allclose(encoder(ids), expected, atol=1e-5)


@torch.inference_mode()
def test_weights_are_those_that_were_saved(encoder: HfEncoder) -> None:
    ids = rows(6, 6)
    saved = transformers.AutoModel.from_pretrained("model").eval()
    hidden = saved(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    assert torch.allclose(
        encoder.body(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state, hidden, atol=1e-5
    )


def test_a_head_that_was_not_trained_is_told(folder: Path) -> None:
    assert HfEncoder(**ARGS).load_pretrained("model") == ["classifier.weight", "classifier.bias"]
    missing = HfEncoder(**ARGS, pooling="head").load_pretrained("model")
    assert missing == ["body.classifier.weight", "body.classifier.bias"]


def test_the_products_of_gpt_2_are_layers_that_methods_know(own_task: Text, tmp_path: Path) -> None:
    settings = transformers.GPT2Config(
        vocab_size=96, n_embd=32, n_layer=2, n_head=2, n_positions=32, pad_token_id=0, num_labels=3
    )
    torch.manual_seed(0)
    theirs = transformers.GPT2ForSequenceClassification(settings).eval()
    theirs.save_pretrained(tmp_path)
    model = HfEncoder(str(tmp_path), "head", classes=3).eval()
    assert model.load_pretrained(str(tmp_path)) == []
    ids = rows(9, 4)
    expected = theirs(ids, attention_mask=(ids != 0).long()).logits
    torch.testing.assert_close(model(ids), expected, atol=1e-5, rtol=0)
    quantized, _ = compress(Linear(), model, batches_of(own_task.splits()["calibration"]), context(own_task))
    assert sum(isinstance(each, QuantizedLinear) for each in quantized.modules()) == 2 * 4 + 1
    assert torch.equal(quantized(ids).argmax(1), expected.argmax(1))


def test_fewer_layers_by_configuration(folder: Path) -> None:
    model = HfEncoder(**ARGS, config={"num_hidden_layers": 1})
    assert len(model.body.encoder.layer) == 1
    model.load_pretrained("model")


@pytest.mark.parametrize(
    ("args", "kind", "message"),
    [
        ({"source": "nowhere"}, DataError, "source: nowhere: no such folder, and the hub"),
        ({"pooling": "max"}, ParamsError, "'max' is not one of mean, cls, head"),
        ({"config": {"layers": 3}}, ParamsError, "config.layers: unknown key of BertConfig"),
    ],
)
def test_wrong_arguments_are_named(args: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        HfEncoder(**ARGS | args)


def test_an_artifact_loads_without_the_models_folder(
    encoder: HfEncoder, own_task: Text, tmp_path: Path, folder: Path
) -> None:
    described = Artifact(Named("text"), Named("hf-encoder", ARGS), [], "teacher")
    artifact.save(tmp_path / "a", encoder, described, files=[folder / "model" / "tokenizer.json"])
    assert sorted(path.name for path in (tmp_path / "a" / "assets").iterdir()) == ["config.json", "tokenizer.json"]
    shutil.move(folder / "model", folder / "elsewhere")
    try:
        loaded, _ = artifact.load(tmp_path / "a", task=own_task)
    finally:
        shutil.move(folder / "elsewhere", folder / "model")
    ids = rows(5, 8)
    with torch.inference_mode():
        assert torch.equal(loaded(ids), encoder(ids))


def context(task: Text, where: str = "params.yaml: quantize.methods.0") -> Context:
    splits = task.splits()
    return Context(task, splits["calibration"], splits["validation"], Target(), Decisions(None, {}), where=where)


def batches_of(split: Split) -> Any:
    def each() -> Any:
        for start in range(0, len(split), 8):
            inputs, y = split[slice(start, start + 8)]
            yield tensors(inputs), torch.from_numpy(y)

    return each


def onnx_of(model: nn.Module, task: Text, folder: Path) -> Any:
    import onnx

    export(model, task.signature(), folder, {})
    return onnx.load(folder / "model.onnx")


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(None, id="float"),
        pytest.param(Linear(), id="linear"),
        pytest.param(Svd(rank=Ratio(0.5), multiple=4), id="svd"),
        pytest.param(DropLayers({"body.encoder.layer": [1]}), id="drop-layers"),
        pytest.param(Magnitude(ratio=0.3), id="magnitude"),
        pytest.param(Float16(), id="float16"),
    ],
)
def test_methods_leave_a_model_that_exports_with_two_free_axes(
    method: Any, encoder: HfEncoder, own_task: Text, tmp_path: Path
) -> None:
    import onnxruntime

    model: nn.Module = encoder
    edits: list[Edit] = []
    if method is not None:
        model, plan = compress(method, encoder, batches_of(own_task.splits()["calibration"]), context(own_task))
        edits = [plan.edit]
    described = Artifact(Named("text"), Named("hf-encoder", ARGS), edits, "x")
    artifact.save(tmp_path / "a", model, described)
    loaded, _ = artifact.load(tmp_path / "a", task=own_task)
    graph = onnx_of(loaded, own_task, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for ids in (rows(1), rows(3, 5, 2), rows(*[16] * 7)):
        (found,) = session.run(None, {"input_ids": ids.numpy()})
        with torch.inference_mode():
            assert np.abs(found - model.eval()(ids).numpy()).max() < (1e-4 if method is None else 0.02)
    if isinstance(method, Linear):
        assert counts(graph)["DequantizeLinear"] >= 12


@pytest.mark.parametrize(
    ("family", "importance"),
    [("EuroBert", "taylor"), ("EuroBert", "movement"), ("NomicBert", "l2"), ("Gte", "taylor"), ("ModernBert", "l1")],
)
def test_gated_feed_forwards_narrower_than_they_were_built_load_and_export(
    family: str, importance: Any, own_task: Text, tmp_path: Path
) -> None:
    import onnxruntime

    torch.manual_seed(0)
    settings = getattr(transformers, f"{family}Config")(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32, pad_token_id=0,
    )  # fmt: skip
    getattr(transformers, f"{family}Model")(settings).save_pretrained(tmp_path / "model")
    args = {"source": str(tmp_path / "model"), "classes": 3}
    model: nn.Module = HfEncoder(**args).eval()
    neurons = Neurons(importance=importance, steps=2 if importance == "movement" else None)
    edits, batches = [], batches_of(own_task.splits()["calibration"])
    for method in (neurons, Linear()):
        model, plan = compress(method, model, batches, context(own_task))
        edits.append(plan.edit)
        if method is neurons:
            assert [note.split(":")[0].rpartition(".")[0] for note in plan.notes[:2]] == [
                f"body.layers.{at}.mlp" for at in range(2)
            ]
            assert plan.notes[-1] == "50.0% of the neurons are gone where 50.0% was asked"
    artifact.save(tmp_path / "a", model, Artifact(Named("text"), Named("hf-encoder", args), edits, "x"))
    shutil.rmtree(tmp_path / "model")
    loaded, _ = artifact.load(tmp_path / "a", task=own_task)
    onnx_of(loaded, own_task, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    ids = rows(3, 5, 2)
    with torch.inference_mode():
        expected = model.eval()(ids)
        assert torch.equal(loaded.eval()(ids), expected)
    assert np.abs(session.run(None, {"input_ids": ids.numpy()})[0] - expected.numpy()).max() < 0.02


def test_structured_pruning_refuses_an_encoder(encoder: HfEncoder, own_task: Text) -> None:
    with pytest.raises(
        MethodError, match=r"prune.methods.0: structured: body.embeddings.word_embeddings is an embedding"
    ):
        compress(
            Structured(), encoder, batches_of(own_task.splits()["calibration"]),
            context(own_task, "params.yaml: prune.methods.0"),
        )  # fmt: skip


def test_a_configuration_without_padding_is_refused(tmp_path: Path) -> None:
    configuration(pad_token_id=None).save_pretrained(tmp_path)
    with pytest.raises(ParamsError, match="no pad_token_id"):
        HfEncoder(str(tmp_path))
