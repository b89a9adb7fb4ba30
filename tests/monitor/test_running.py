"""What ``slimline monitor`` refuses before it watches anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from slimline import locking
from slimline.errors import ParamsError
from slimline.monitor.running import Options, run


def options(folder: Path, url: str, **other: Any) -> Options:
    known: dict[str, Any] = {
        "store": url, "deployment": None, "releases": (), "params": None, "folder": folder / "state",
        "host": "127.0.0.1", "port": 0, "interval": 1.0, "undo": folder / "undo", "token_file": None, "endpoints": (),
    }  # fmt: skip
    return Options(**(known | other))


def test_a_wrong_target_is_told_at_the_start(tmp_path: Path, url: str, document: dict[str, Any]) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(document | {"monitor": {"undo": {"target": {"name": "deployment", "pth": "x"}}}}))
    with pytest.raises(ParamsError, match=r"params\.yaml: monitor\.undo\.target\.pth: unknown key of 'deployment'"):
        run(options(tmp_path, url, params=path))


def test_two_monitors_on_one_state_folder_would_alarm_twice(
    tmp_path: Path, url: str, two_releases: tuple[Path, Path]
) -> None:
    with (
        locking.held(tmp_path / "state", 0.0, ParamsError),
        pytest.raises(ParamsError, match="state: another monitor runs on it; give this one another --state"),
    ):
        run(options(tmp_path, url, releases=two_releases))
