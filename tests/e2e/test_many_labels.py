"""Texts with any of several labels: each stage's thresholds are fitted, travel with the release and are answered by."""

from __future__ import annotations

import csv
import random
from typing import Any

import pytest
from starlette.testclient import TestClient

from slimline import manifest
from slimline.endpoint.app import create_app
from slimline.endpoint.settings import Settings
from tests.e2e.conftest import Project, initialized
from tests.encoders import LABELS, texts, write_encoder, write_table

pytest.importorskip("transformers")
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def rows(count: int, seed: int) -> list[tuple[str, str]]:
    """Return texts of one label, and each third time of two."""
    others = texts(count, seed + 100)
    random.Random(seed).shuffle(others)
    found = []
    for at, ((first, label), (second, other)) in enumerate(zip(texts(count, seed), others, strict=True)):
        both = at % 9 < 3 and other != label
        found.append((f"{first} {second}", f"{label},{other}") if both else (first, label))
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A repository whose int8 chain has run on texts with one label or two."""
    root = tmp_path_factory.mktemp("many") / "project"
    root.mkdir()
    write_encoder(root / "model")
    (root / "rows").mkdir()
    write_table(root / "rows/train.csv", rows(600, 3))
    write_table(root / "rows/test.csv", rows(240, 4))
    made = initialized(root, "--model", "model", "--data", "rows", "--recipe", "int8")
    made.edit("params.yaml", "{epochs: 2, batch_size: 32, lr: 0.0001", "{epochs: 6, batch_size: 32, lr: 0.002")
    made.repro(**OFFLINE)
    return made


@pytest.fixture(scope="module")
def test_rows(project: Project) -> list[tuple[str, set[str]]]:
    with (project.root / "rows/test.csv").open() as file:
        return [(row["text"], set(row["label"].split(","))) for row in csv.DictReader(file)]


def thresholds(project: Project, stage: str) -> list[float]:
    found: list[float] = manifest.read_json(project.root / "release/chain" / stage / "signature.json")["thresholds"]
    return found


def test_each_stage_has_its_own(project: Project) -> None:
    teacher, own = thresholds(project, "teacher"), thresholds(project, "quantize")
    assert len(teacher) == len(own) == len(LABELS)
    assert teacher != own
    assert all(0 < each < 1 for each in [*teacher, *own])
    assert 0.5 not in own


def test_what_is_served_is_what_was_measured(project: Project, test_rows: list[tuple[str, set[str]]]) -> None:
    measured: Any = project.json("metrics/benchmark.json")["stages"]
    settings = Settings(release=project.root / "release", event_store="", reload_seconds=0.0)
    predictions: list[dict[str, Any]] = []
    with TestClient(create_app(settings)) as client:
        for at in range(0, len(test_rows), 60):
            raw = [text for text, _ in test_rows[at : at + 60]]
            predictions += client.post("/predict", json={"raw": raw}).json()["predictions"]
        parameters = client.get("/v2/models/text").json()["parameters"]
        counted = client.get("/metrics").text
    own = thresholds(project, "quantize")
    assert parameters["thresholds"] == own
    for each in predictions:
        above = [name for name, limit in zip(LABELS, own, strict=True) if each["probabilities"][name] > limit]
        assert each["label"] == ",".join(above)
    said = [set(filter(None, each["label"].split(","))) for each in predictions]
    hits = sum(len(mine & truth) for mine, (_, truth) in zip(said, test_rows, strict=True))
    sizes = sum(len(mine) + len(truth) for mine, (_, truth) in zip(said, test_rows, strict=True))
    assert 2 * hits / sizes == pytest.approx(measured["quantize"]["micro_f1"], abs=0.01)  # ranges are those of a batch
    assert measured["quantize"]["micro_f1"] > 0.8
    for name in LABELS:
        (line,) = (
            each
            for each in counted.splitlines()
            if each.startswith("slimline_predictions_total") and f'label="{name}"' in each
        )
        assert float(line.rpartition(" ")[2]) == sum(name in each for each in said)

    write_table(project.root / "new.csv", [(text,) for text, _ in test_rows], ("text",))
    project.run("slimline", "predict", "release", "new.csv", "answers.csv", "--batch", "60")
    with (project.root / "answers.csv").open() as file:
        scored = [row["label"] for row in csv.DictReader(file)]
    assert scored == [each["label"] for each in predictions]


def test_triton_gets_them_as_parameters(project: Project) -> None:
    project.run("slimline", "triton", "release", "--out", "repository")
    config = next((project.root / "repository").rglob("config.pbtxt"))
    assert "thresholds.1" in config.read_text()
