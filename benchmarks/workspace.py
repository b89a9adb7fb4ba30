"""A scratch project beside the real one: other params, the same data, code and artifacts to start from."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml


@contextmanager
def workspace(document: dict[str, Any], done: Path) -> Iterator[Path]:
    """Enter a folder with ``document`` as params.yaml, the project's data and code, and the artifacts in ``done``.

    The teacher's cached answers are the project's own, so that they are computed once.
    """
    here = Path.cwd()
    cache = here / ".slimline/teacher"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("data", "stages"):
            (root / name).symlink_to((here / name).resolve())
        shutil.copytree(done, root / "artifacts")
        (root / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        (root / ".slimline").mkdir()
        (root / ".slimline/teacher").symlink_to(cache.resolve())
        os.chdir(root)
        try:
            yield root
        finally:
            os.chdir(here)
