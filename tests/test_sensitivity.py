from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from slimline import pipeline, source_code
from slimline.file_index import FILE, FileIndex
from slimline.methods.linear import Linear
from slimline.sensitivity import code_version


def test_code_that_the_fingerprints_have_read_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    version = code_version.__wrapped__  # without what this process has found before
    first = version(frozenset({Linear}))
    index = FileIndex(FILE)
    pipeline.closure([Linear.__module__, code_version.__module__], {"slimline"}, index)
    index.save()

    def read_code(path: Path) -> list[Any]:
        raise AssertionError(path)

    monkeypatch.setattr(pipeline, "read_code", read_code)
    assert version(frozenset({Linear})) == first


def test_of_packages_that_are_installed_the_version_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A BERT had 2,500 files of transformers read, which took a minute before the first line."""
    from transformers.models.bert.modeling_bert import BertSelfAttention

    monkeypatch.chdir(tmp_path)
    version = code_version.__wrapped__
    kinds = frozenset({BertSelfAttention, nn.Linear, Linear})
    read = []

    def seen(path: Path) -> list[Any]:
        read.append(path)
        return source_code.read_code(path)

    monkeypatch.setattr(pipeline, "read_code", seen)
    first = version(kinds)
    assert read
    assert all("site-packages" not in path.parts for path in read)
    assert version(frozenset({nn.Linear, Linear})) != first
    monkeypatch.setattr(sys.modules["transformers"], "__version__", "another")
    assert version(kinds) != first
