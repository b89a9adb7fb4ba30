"""The task on forty pictures of each colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimline.tasks.labelled_images import Images, images
from tests.pictures import LABELS, write_folders


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_folders(tmp_path / "pictures")


def make(data: Path, **args: Any) -> Images:
    return images(**{"data": str(data), "labels": LABELS, "size": [16, 16]} | args)


def all_rows(task: Images) -> set[bytes]:
    return {np.asarray(row).tobytes() for split in task.splits().values() for row in split.inputs["image"]}
