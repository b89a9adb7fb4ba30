"""Projects as ``slimline init`` lays them out, in a folder of the test's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from slimline import check
from slimline.project import layout, own_project
from slimline.project.own_project import Own
from tests.encoders import texts, write_encoder
from tests.pictures import write_folders

ROWS = texts(120)
WAYS: dict[str, Callable[[int, str], Any]] = {
    "one": lambda at, label: label,
    "many": lambda at, label: f"{label},late" if at % 2 else label,
    "number": lambda at, label: at / 10,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("models") / "bert")


def laid_out(model: str, data: str, recipe: str = "int8", **more: Any) -> dict[str, Any]:
    """Return params.yaml's content as init writes it."""
    document: dict[str, Any] = yaml.safe_load(
        own_project.params_text(Own(model, Path(data), **more), Path(), recipe, None)
    )
    return document


def checked(document: dict[str, Any]) -> list[str]:
    """Return what ``slimline check`` says of it."""
    Path("params.yaml").write_text(yaml.safe_dump(document))
    shutil.copyfile(layout.source() / "dvc.yaml", "dvc.yaml")
    return check.check()


def labelled_images(way: str = "one") -> list[tuple[Any, ...]]:
    """Write pictures in class folders, and return a row (path, label, split, group) for each."""
    files = sorted(path.relative_to(Path.cwd()) for path in write_folders(Path.cwd() / "p", 20).rglob("*.png"))
    parts = ("train", "train", "train", "val", "test")
    return [
        (str(path), WAYS[way](at, path.parent.name), parts[at % 5], f"{path.parent.name}{at % 10}")
        for at, path in enumerate(files)
    ]
