"""A folder that was misspelt, or isn't whole, is told; what may be a name on the hub is looked for there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slimline import tokenizer
from slimline.errors import ArtifactError, DataError
from slimline.models.hf_encoder import HfEncoder
from slimline.project import text_params
from slimline.teachers import hub
from tests.encoders import write_encoder, write_table
from tests.own_kinds.conftest import ROWS, laid_out

pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_encoder(tmp_path / "models" / "sentiment")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("./none", ""),
        ("/nowhere/model", ""),
        ("a/b/c", ""),
        (".\\none", ""),
        ("models\\none", ""),
        ("models/sentimnet", " Did you mean 'models/sentiment'?"),
        ("models/Sentiment ", " Did you mean 'models/sentiment'?"),
    ],
)
def test_a_misspelt_folder_is_told_at_once(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **_more: pytest.fail("asked the hub"))
    with pytest.raises(DataError) as caught:
        text_params.configuration(name)
    assert str(caught.value) == (f"--model: {name}: no such folder.{meant} A model on the hub is called OWNER/NAME")


@pytest.mark.parametrize("name", ["bert-base-uncased", "models/other", "owner/sentiment", "sentiment"])
def test_a_name_that_may_be_one_on_the_hub_passes(name: str) -> None:
    hub.check_name(name)


def test_a_hub_that_is_out_of_reach_is_told_soon(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its library tries again for half a minute, with two lines on each try."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    started = time.monotonic()
    asking: dict[str, Callable[[str], Any]] = {
        "--model: ": text_params.configuration, "tokenizer ": tokenizer.find, "source: ": HfEncoder
    }  # fmt: skip
    for said, ask in asking.items():
        with pytest.raises(DataError) as caught:
            ask("owner/encoder")
        assert str(caught.value).startswith(f"{said}owner/encoder: no such folder, and the hub doesn't give it: ")
        assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 10
    assert "Retry" not in capfd.readouterr().err


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 9\n"
BROKEN = {
    "half a configuration": ("config.json", '{"vocab_size": ', r"config\.json: not JSON \(Expecting value.*\); fetch"),
    "a list": ("config.json", "[]", r"config\.json: a JSON object is expected, found list"),
    "half a tokenizer": ("tokenizer.json", '{"model": ', r"tokenizer\.json: not JSON \(Expecting value.*\); fetch"),
    "no tokenizer": ("tokenizer.json", "{}", r"tokenizer\.json: no vocabulary in it \(model\.vocab\); save it by"),
    "what git clone left": ("tokenizer.json", POINTER, r"tokenizer\.json: a pointer of Git LFS, .*'git lfs pull'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_damaged_files_of_a_model_are_named(case: str) -> None:
    """They ended in a traceback."""
    name, content, message = BROKEN[case]
    write_table(Path("t.csv"), ROWS)
    Path("models/sentiment", name).write_text(content)
    with pytest.raises(DataError, match=rf"^models/sentiment/{message}") as caught:
        laid_out("models/sentiment", "t.csv")
    assert "\n" not in str(caught.value)


def test_weights_that_git_clone_left_out_are_told() -> None:
    model = HfEncoder("models/sentiment")
    Path("models/sentiment/model.safetensors").write_text(POINTER)
    with pytest.raises(ArtifactError, match=r"^models/sentiment/model\.safetensors: a pointer of Git LFS"):
        model.load_pretrained("models/sentiment")
