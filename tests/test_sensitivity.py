from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slimline import pipeline
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
