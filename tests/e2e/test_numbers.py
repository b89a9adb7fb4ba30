"""Texts with a number each: trained, compressed, judged and answered as one."""

from __future__ import annotations

import csv
import json
import random
from typing import Any

import pytest

from tests.e2e.conftest import Project, initialized
from tests.encoders import LABELS, texts, write_encoder

pytest.importorskip("transformers")
MEAN, SPREAD = 300_000, 100_000  # far from what a new layer's first weights answer
OFFLINE = {"HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A repository whose int8 chain has run on texts that are rated by what they are about."""
    root = tmp_path_factory.mktemp("numbers") / "project"
    root.mkdir()
    write_encoder(root / "model")
    chance = random.Random(0)
    rows = [
        {"review": text, "rating": MEAN + SPREAD * (LABELS.index(label) - 1 + chance.random() / 4)}
        for text, label in texts(600)
    ]
    (root / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    made = initialized(root, "--model", "model", "--data", "rows.jsonl", "--recipe", "int8")
    made.edit("params.yaml", "{epochs: 2, batch_size: 32, lr: 0.0001", "{epochs: 8, batch_size: 32, lr: 0.002")
    made.repro(**OFFLINE)
    return made


def test_what_is_answered_is_near_the_number(project: Project) -> None:
    stages: Any = project.json("metrics/benchmark.json")["stages"]
    assert stages["quantize"]["rmse"] < 0.5 * SPREAD, "always answering the mean is wrong by 0.8"
    assert stages["quantize"]["bytes"] < stages["teacher"]["bytes"] / 2
    assert {"rmse", "mae", "within_tolerance"} <= stages["quantize"]["drops"].keys()
    rows = [json.loads(line) for line in (project.root / "rows.jsonl").read_text().splitlines()]
    project.run("slimline", "predict", "release", "rows.jsonl", "answers.csv", "--column", "review")
    with (project.root / "answers.csv").open() as file:
        answers = [float(row["value"]) for row in csv.DictReader(file)]
    errors = [(answer - row["rating"]) ** 2 for answer, row in zip(answers, rows, strict=True)]
    assert (sum(errors) / len(errors)) ** 0.5 < 0.5 * SPREAD
