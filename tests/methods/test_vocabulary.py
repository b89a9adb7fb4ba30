"""Embeddings of tokens that no text can have go; every answer stays."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimline.decisions import Decisions
from slimline.errors import MethodError
from slimline.export.onnx import to_onnx
from slimline.method import Batches, Context, compress, load_tensors
from slimline.methods.linear import Linear
from slimline.methods.vocabulary import TrimmedEmbedding, Vocabulary
from slimline.task import tensors
from slimline.tasks.text import Text, text
from tests.encoders import COMMON, LABELS, texts, write_table, write_tokenizer

pytest.importorskip("tokenizers")
TOKENS, WIDTH = 96, 16


class Words(nn.Module):
    """A table of words, one of positions, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(TOKENS, WIDTH, padding_idx=0), nn.Embedding(32, WIDTH)
        self.classifier = nn.Linear(WIDTH, len(LABELS))

    def forward(self, input_ids: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        out: Tensor = self.classifier((self.words(input_ids) + self.places(places)).mean(1))
        return out


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tokenizer and a table whose training rows are of two topics."""
    monkeypatch.chdir(tmp_path)
    write_tokenizer(tmp_path / "model")
    found = texts(300)
    few = [(f"the atom {word}", "science") for word in COMMON]
    write_table(tmp_path / "train.csv", [row for row in found if row[1] != "science"] + few)
    write_table(tmp_path / "test.csv", texts(60, seed=1))
    return tmp_path


def task(vocabulary: str) -> Text:
    data = {"train": "train.csv", "test": "test.csv"}
    return text(data=data, tokenizer="model", labels=list(LABELS), max_length=32, vocabulary=vocabulary)


def batches(of: Text, part: str = "calibration") -> Batches:
    inputs, targets = of.splits()[part][slice(0, 64)]
    return lambda: [(tensors(inputs), torch.tensor(targets))]


def context(of: Any) -> Context:
    parts = of.splits()["calibration"], of.splits()["validation"]
    return Context(of, *parts, SimpleNamespace(), Decisions(None, {}))  # type: ignore[arg-type]


@pytest.fixture
def model() -> Words:
    """The model, with weights of its own."""
    torch.manual_seed(0)
    return Words().eval()


@pytest.mark.usefixtures("folder")
def test_training_texts_keep_their_tokens_and_others_fall_into_characters() -> None:
    whole, trimmed = task("all"), task("train")
    before, after = whole.splits(), trimmed.splits()
    assert before["train"].digest == after["train"].digest
    assert not np.array_equal(before["test"].inputs["input_ids"], after["test"].inputs["input_ids"])
    assert not (after["test"].inputs["input_ids"] == 1).any(), "no text became unknown"
    assert any("pieces stay" in note for note in trimmed.notes)
    spelled = trimmed.tokens(["the orbit"])["input_ids"][0]
    assert list(spelled[:8]) == [2, _number(trimmed, "the"), *_spelled(trimmed, "orbit"), 3][:8]


@torch.no_grad()
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("bits", [None, 8])
def test_no_answer_changes(model: Words, bits: int | None) -> None:
    of = task("train")
    given: nn.Module = model
    if bits:
        given, _ = compress(Linear(bits=bits), model, batches(of), context(of))
    smaller, plan = compress(Vocabulary(), given, batches(of), context(of))
    table = smaller.get_submodule("words")
    assert isinstance(table, TrimmedEmbedding)
    assert table.rows.num_embeddings == plan.edit.data["rows"]["words"] < TOKENS
    assert f"of {TOKENS} tokens kept" in plan.notes[0]
    for part in ("train", "validation", "test"):
        for inputs, _ in batches(of, part)():
            assert torch.equal(smaller.eval()(**inputs), given.eval()(**inputs))


@torch.no_grad()
@pytest.mark.usefixtures("folder")
def test_it_is_rebuilt_from_its_edit_and_runs_as_onnx(model: Words) -> None:
    of = task("train")
    smaller, plan = compress(Vocabulary(), model, batches(of), context(of))
    again = Vocabulary.apply(copy.deepcopy(model), plan.edit)
    load_tensors(again, smaller.state_dict())
    ((inputs, _),) = batches(of)()
    assert torch.equal(again.eval()(**inputs), smaller.eval()(**inputs))
    quantized, _ = compress(Linear(bits=8), smaller, batches(of), context(of))
    for each in (smaller, quantized):
        session = _session(each, of)
        (found,) = session.run(None, {"input_ids": inputs["input_ids"].numpy()})
        np.testing.assert_allclose(found, each.eval()(**inputs).numpy(), atol=1e-4)


@pytest.mark.usefixtures("folder")
def test_a_tokenizer_that_gives_every_token_leaves_nothing_to_do(model: Words) -> None:
    of = task("all")
    model.words = nn.Embedding(64, WIDTH)
    with pytest.raises(MethodError, match=r"each of the 64 tokens of words; set task.args.vocabulary: train"):
        Vocabulary().plan(model, batches(of), context(of))


@torch.no_grad()
def test_where_training_texts_need_every_piece_nothing_goes(folder: Path, model: Words) -> None:
    write_table(folder / "train.csv", texts(300))
    of = task("train")
    model.words = nn.Embedding(89, WIDTH)
    same, plan = compress(Vocabulary(), model, batches(of), context(of))
    assert plan.notes == ["words: all 89 tokens stay, training texts need each"]
    assert plan.edit.data == {"rows": {}}
    ((inputs, _),) = batches(of)()
    assert torch.equal(same.eval()(**inputs), model.eval()(**inputs))


def _number(of: Text, piece: str) -> int:
    from tokenizers import Tokenizer

    (step,) = of.preprocess()["steps"]
    number: int = Tokenizer.from_file(step["file"]).token_to_id(piece)
    return number


def _spelled(of: Text, word: str) -> list[int]:
    """Return the numbers of a word's characters."""
    return [_number(of, each if at == 0 else f"##{each}") for at, each in enumerate(word)]


def _session(model: nn.Module, of: Text) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(to_onnx(model, of.signature()).SerializeToString())
