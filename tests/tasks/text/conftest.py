"""Tables of texts in every format, and the task on them in a folder with a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slimline.tasks.text import Text, text
from tests.encoders import LABELS, write_table, write_tokenizer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tokenizer, in which the task keeps its rows."""
    monkeypatch.chdir(tmp_path)
    write_tokenizer(tmp_path / "model")
    return tmp_path


def make(data: Any, **args: Any) -> Text:
    return text(**{"data": data, "tokenizer": "model", "labels": list(LABELS), "max_length": 16} | args)


def write_jsonl(path: Path, found: list[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in found))
    return path


def write_parquet(path: Path, found: list[tuple[str, str]]) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"text": [a for a, _ in found], "label": [b for _, b in found]}), path)
    return path


WRITERS: dict[str, Callable[[Path, list[tuple[str, str]]], Path]] = {
    ".csv": write_table, ".tsv": write_table, ".jsonl": write_jsonl, ".parquet": write_parquet,
}  # fmt: skip
