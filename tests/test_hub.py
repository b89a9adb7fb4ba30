"""A folder that was misspelt is told at once; what may be a name on the hub is looked for there."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimline import hub
from slimline.errors import DataError
from slimline.project import own_params
from tests.encoders import write_encoder

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
