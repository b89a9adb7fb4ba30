"""A small network that real stages compressed."""

from __future__ import annotations

import copy
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from slimline import artifact, manifest, params
from slimline.artifact import Artifact
from slimline.models.cnn import Cnn
from slimline.stage import Stage, compression

from .project import Project

STAGES = ("teacher", "prune", "quantize", "factorize")
ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = {
    "task": {"name": "digits"},
    "target": {"batch_sizes": [1, 8, 32]},
    "limit": 300,
    "teacher": {"model": {"name": "cnn", "args": {"width": 8}}, "training": {"epochs": 3, "lr": 0.02}},
    "prune": {
        "from": "teacher",
        "methods": [
            {"name": "structured", "importance": "l2", "ratio": 0.5, "scope": "layer", "multiple": 4},
            {"name": "magnitude", "ratio": 0.25, "scope": "layer", "skip": ["0"]},
        ],
    },
    "quantize": {"from": "prune", "methods": [{"name": "linear", "skip": ["0"]}]},
    "factorize": {
        "from": "quantize",
        "methods": [
            {"name": "tucker2", "skip": ["0"], "rank": {"ratio": 0.5}, "multiple": 1},
            {"name": "svd", "skip": ["3*", "6*"], "rank": {"ratio": 0.5}, "multiple": 1},
        ],
    },
    "export": {"stages": list(STAGES), "samples": 60, "min_agreement": 0.9},
}


@pytest.fixture(scope="session")
def compressed(_trained_cnn: Cnn, described: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the stages of ``DOCUMENT`` wrote. Copy it before changing it."""
    folder: Path = tmp_path_factory.mktemp("compressed")
    spec = importlib.util.spec_from_file_location("export_of_chain", ROOT / "stages/export.py")
    assert spec is not None
    assert spec.loader is not None
    export = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(export)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("params.yaml").write_text(yaml.safe_dump(DOCUMENT, sort_keys=False), encoding="utf-8")
        settings = params.load()
        artifact.save(Path("artifacts/teacher"), _trained_cnn, described["cnn"])
        for name in STAGES:
            if name != "teacher":
                compression(Stage(name, settings, settings.limit))
            export.main(Stage(name, settings, settings.limit))
    return folder


@pytest.fixture(scope="session")
def chain(compressed: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same with a benchmark."""
    return project_of(compressed, tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="session")
def pages(chain: Project) -> tuple[str, str]:
    """The (HTML, Markdown) of the small network's report."""
    return chain.report()


def project_of(compressed: Path, folder: Path) -> Project:
    """Copy what the stages wrote, and say of each export how large it is."""
    shutil.copytree(compressed, folder, dirs_exist_ok=True)
    project = Project(folder, copy.deepcopy(DOCUMENT), STAGES)
    for name, row in project.benchmark["stages"].items():
        row["bytes"] = manifest.read_json(folder / "exports" / name / "facts.json")["bytes"]
    return project
