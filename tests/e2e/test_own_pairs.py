"""Texts in pairs by the recipe that goes furthest: vocabulary, layers, heads, neurons, int8; answered as pairs."""

from __future__ import annotations

import csv
import json
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from slimline.endpoint.app import create_app
from slimline.endpoint.settings import Settings
from tests.e2e.conftest import Project, initialized
from tests.encoders import configuration, texts, write_tokenizer

pytest.importorskip("transformers")
OFFLINE = {"HF_HUB_OFFLINE": "1"}
Pair = tuple[str, str, str]


def pairs(count: int, seed: int) -> list[Pair]:
    """Return (a text, another on the same topic, the topic)."""
    return [(a, b, label) for (a, label), (b, _) in zip(texts(count, seed), texts(count, seed + 1), strict=True)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A repository whose ``smallest`` chain has run on pairs of texts."""
    from transformers import BertModel

    root = tmp_path_factory.mktemp("pairs") / "project"
    BertModel(configuration(num_hidden_layers=3)).save_pretrained(root / "model")
    write_tokenizer(root / "model")
    rows = [{"question": a, "reply": b, "topic": label} for a, b, label in pairs(600, 11)]
    (root / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    columns = ("--text", "question", "--text", "reply", "--label", "topic")
    made = initialized(root, "--model", "model", "--data", "rows.jsonl", "--recipe", "smallest", *columns)
    made.edit("params.yaml", "{epochs: 2, batch_size: 32, lr: 0.0001", "{epochs: 8, batch_size: 32, lr: 0.002")
    made.edit("params.yaml", "{epochs: 5, batch_size: 32, lr: 0.0002", "{epochs: 8, batch_size: 32, lr: 0.002")
    made.run("slimline", "check", **OFFLINE)
    ran = made.repro(**OFFLINE)
    assert [each for each in ran if "@" not in each][:4] == ["teacher", "distill", "prune", "quantize"]
    return made


def test_every_stage_has_made_it_smaller(project: Project) -> None:
    stages: Any = project.json("metrics/benchmark.json")["stages"]
    sizes = [stages[name]["bytes"] for name in ("teacher", "distill", "prune", "quantize")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 3
    assert stages["teacher"]["accuracy"] > 0.9
    assert stages["quantize"]["accuracy"] > stages["teacher"]["accuracy"] - 0.1


def test_pairs_are_answered_over_http_and_from_a_file(project: Project) -> None:
    rows = pairs(60, 31)
    settings = Settings(release=project.root / "release", event_store="", reload_seconds=0.0)
    with TestClient(create_app(settings)) as client:
        answer = client.post("/predict", json={"raw": [[a, b] for a, b, _ in rows]})
        assert answer.status_code == 200, answer.text
    served = [each["label"] for each in answer.json()["predictions"]]
    assert np.mean([label == truth for label, (_, _, truth) in zip(served, rows, strict=True)]) > 0.8
    new = "".join(f"{json.dumps({'question': a, 'reply': b})}\n" for a, b, _ in rows)
    (project.root / "new.jsonl").write_text(new)
    columns = ("--column", "question", "--column", "reply")
    project.run("slimline", "predict", "release", "new.jsonl", "answers.csv", *columns)
    with (project.root / "answers.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == served
