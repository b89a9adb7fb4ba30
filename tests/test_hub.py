"""A folder that was misspelt, or isn't whole, is told; what may be a name on the hub is looked for there."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from slimline import hub, tokenizer
from slimline.errors import ArtifactError, DataError
from slimline.models.hf_encoder import HfEncoder
from slimline.project import own_params
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
        ("models/sentimnet", " Did you mean 'models/sentiment'?"),
        ("models/Sentiment ", " Did you mean 'models/sentiment'?"),
    ],
)
def test_a_misspelt_folder_is_told_at_once(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(DataError) as caught:
        own_params.configuration(name)
    assert str(caught.value) == (f"--model: {name}: no such folder.{meant} A model on the hub is called OWNER/NAME")


@pytest.mark.parametrize("name", ["bert-base-uncased", "models/other", "owner/sentiment", "sentiment"])
def test_a_name_that_may_be_one_on_the_hub_passes(name: str) -> None:
    hub.check_name(name)


class Closed(BaseHTTPRequestHandler):
    """A hub that is down."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        self.send_error(503)

    def log_message(self, *_: object) -> None:
        pass


def test_a_hub_that_is_down_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked six times, with up to eight seconds between."""
    server = HTTPServer(("127.0.0.1", 0), Closed)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    try:
        for ask in (own_params.configuration, tokenizer.find, HfEncoder):
            Closed.asked.clear()
            with pytest.raises(DataError, match=r"owner/none: no such folder, and the hub doesn't give it: .*503"):
                ask("owner/none")
            assert len(Closed.asked) == 1
    finally:
        server.shutdown()
        server.server_close()


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
