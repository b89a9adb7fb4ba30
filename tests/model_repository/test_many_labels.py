"""Any of several labels: the thresholds are among the parameters, each version's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slimline.model_repository.repository import Options, write
from tests.many_labels import write_release


def test_each_versions_thresholds_are_parameters(
    many_release: Path, two_releases: tuple[Path, Path], resealed: Callable[..., Path], tmp_path: Path, parsed: Any
) -> None:
    """Of a release without any, those that are answered by: one half."""
    older = write_release(two_releases[1], tmp_path / "older", resealed)
    write([older, many_release], tmp_path / "out", Options())
    found = parsed(tmp_path / "out" / "digits" / "config.pbtxt").parameters
    assert json.loads(found["thresholds.1"].string_value) == [0.5] * 10
    assert json.loads(found["thresholds.2"].string_value)[:3] == [0.5, 0.6, 0.7]
    newest = parsed(tmp_path / "out" / "digits-raw" / "config.pbtxt").parameters
    assert "thresholds.2" in newest
    assert "thresholds.1" not in newest


def test_one_label_a_row_has_no_thresholds(two_releases: tuple[Path, Path], tmp_path: Path, parsed: Any) -> None:
    write(two_releases[:1], tmp_path / "out", Options())
    assert not [
        each for each in parsed(tmp_path / "out" / "digits" / "config.pbtxt").parameters if each.startswith("thr")
    ]
