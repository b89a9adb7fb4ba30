"""A model's tokenizer is found in its folder, or what stands there is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slimline import tokenizer
from slimline.errors import DataError
from tests.encoders import configuration, write_encoder, write_tokenizer

pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_model(folder: Path, **sizes: int) -> None:
    from transformers import BertModel

    BertModel(configuration(**sizes)).save_pretrained(folder)


def test_a_model_without_a_tokenizer_is_refused() -> None:
    write_model(Path("m"))
    with pytest.raises(DataError, match=r"^m: no tokenizer in it \(tokenizer\.json, vocab\.txt\); save the model's"):
        tokenizer.find("m")


def test_a_tokenizer_far_smaller_than_its_model_is_refused() -> None:
    write_model(Path("m"), vocab_size=1000)
    write_tokenizer(Path("m"))
    with pytest.raises(DataError, match=r"^m: its tokenizer has 89 pieces and the model 1,000 \(vocab_size in config"):
        tokenizer.find("m")


def test_an_older_vocabulary_is_made_a_tokenizer() -> None:
    write_encoder(Path("whole"))
    words = json.loads(Path("whole/tokenizer.json").read_text())["model"]["vocab"]
    write_model(Path("m"))
    Path("m/vocab.txt").write_text("".join(f"{word}\n" for word in sorted(words, key=words.__getitem__)))
    made = json.loads(tokenizer.find("m").file.read_text())
    assert made["model"]["vocab"] == words
