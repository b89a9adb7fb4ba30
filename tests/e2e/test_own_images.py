"""One's own images in an archive and a net of one's own in a file: compressed, measured on all runtimes, answered."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from slimline.endpoint.app import create_app
from slimline.endpoint.settings import Settings
from slimline.models.resnet import ResNet
from tests.e2e.conftest import Project, initialized
from tests.pictures import LABELS, picture, write_folders, write_zip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A repository whose ``small`` chain has run on a zip of class folders, on two threads, by the fastest runtime."""
    root = tmp_path_factory.mktemp("images") / "project"
    root.mkdir()
    write_zip(write_folders(root.parent / "pictures", 60), root / "pictures.zip")
    torch.manual_seed(0)
    torch.save(
        {"state_dict": {f"net.{k}": v for k, v in ResNet(classes=1000, channels=3).state_dict().items()}},
        root / "net.ckpt",
    )
    own = ("--model", "resnet", "--weights", "net.ckpt", "--data", "pictures.zip", "--size", "32", "32")
    made = initialized(root, *own, "--recipe", "small")
    made.edit("params.yaml", "runtime: onnxruntime\n  threads: 1", "runtime: auto\n  threads: 2")
    made.edit("params.yaml", "batch_size: 64", "batch_size: 8")  # few images: else hardly a step
    made.run("slimline", "check")
    made.repro()
    return made


def test_the_net_is_trained_from_the_file_and_gets_smaller(project: Project) -> None:
    document = (project.root / "params.yaml").read_text()
    assert "weights: net.ckpt" in document
    stages: Any = project.json("metrics/benchmark.json")["stages"]
    assert list(stages) == ["prune", "quantize", "teacher"]
    assert stages["teacher"]["accuracy"] > 0.9
    assert stages["quantize"]["accuracy"] > stages["teacher"]["accuracy"] - 0.1
    assert stages["quantize"]["bytes"] < stages["prune"]["bytes"] < stages["teacher"]["bytes"]


def test_rows_that_threads_share_are_measured_beside_shared_operators(project: Project) -> None:
    latency: Any = project.json("metrics/latency.json")
    assert {"onnxruntime", "onnxruntime-rows"} <= latency["runtimes"].keys()
    assert all(row["runtime"] in latency["runtimes"] for row in latency["stages"].values())


def test_images_are_answered_over_http_and_from_an_archive(project: Project) -> None:
    settings = Settings(release=project.root / "release", event_store="", reload_seconds=0.0)
    with TestClient(create_app(settings)) as client:
        for label in LABELS:
            sent = io.BytesIO()
            picture(label, 5000).save(sent, "PNG")
            answer = client.post("/predict", content=sent.getvalue(), headers={"content-type": "image/png"})
            assert answer.status_code == 200, answer.text
            assert answer.json()["predictions"][0]["label"] == label
    project.run("slimline", "predict", "release", "pictures.zip", "answers.csv")
    with (project.root / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    right = [any(f"/{row['label']}/" in cell for cell in row.values()) for row in rows]
    assert len(rows) == 60 * len(LABELS)
    assert sum(right) / len(right) > 0.9
