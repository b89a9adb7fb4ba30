"""What make does first, by ``make -n``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("there", [False, True], ids=["fresh", "released"])
def test_the_demo_first_makes_the_release_that_it_lacks(there: bool, tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv").mkdir()
    for name in ("requirements.lock", "pyproject.toml", ".venv/installed"):
        (tmp_path / name).touch()
    if there:
        (tmp_path / "release").mkdir()
        (tmp_path / "release/manifest.json").touch()
    done = subprocess.run(["make", "-n", "demo-regression"], cwd=tmp_path, capture_output=True, text=True, check=True)
    steps = [line for line in done.stdout.splitlines() if line.startswith(("dvc repro", "python benchmarks"))]
    demo = ["python benchmarks/regression/run.py"]
    assert steps == (demo if there else ["dvc repro report release", *demo])
