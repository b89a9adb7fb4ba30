"""JSON lines as users have them: keys that not every line has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slimline import tables
from slimline.errors import DataError
from slimline.project import own_data


def write_lines(path: Path, missing: str) -> Path:
    """Write lines of which the third alone lacks a key."""
    lines = [{"text": f"a goal {at}", "label": "ab"[at % 2], "lang": "en"} for at in range(8)]
    del lines[2][missing]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_a_key_that_nobody_uses_may_be_missing(tmp_path: Path) -> None:
    assert own_data.describe(write_lines(tmp_path / "t.jsonl", "lang")).rows == 8


def test_a_key_that_is_used_may_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.jsonl: line 3: no key 'text', which line 1 has"):
        own_data.describe(write_lines(tmp_path / "t.jsonl", "text"))
    with pytest.raises(DataError, match="line 3: no key 'lang'"):
        list(tables.read(write_lines(tmp_path / "t.jsonl", "lang")).batches(10))
