"""One's own model and table, without code: from ``slimline init`` to raw text over HTTP."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from slimline.endpoint.app import create_app
from slimline.endpoint.settings import Settings
from tests.e2e.conftest import Project, initialized
from tests.encoders import LABELS, configuration, texts, write_table, write_tokenizer

pytest.importorskip("transformers")
OFFLINE = {"HF_HUB_OFFLINE": "1"}
ORDER = ("sport", "money", "science")  # not the alphabet's: the model's own order must be found


def trained(folder: Path) -> float:
    """Fine-tune a tiny BERT with transformers' Trainer, save what it saves, and return its accuracy on other rows."""
    from tokenizers import Tokenizer
    from transformers import BertForSequenceClassification, Trainer, TrainingArguments

    write_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=18)
    tokenizer.enable_truncation(18)

    def rows(count: int, seed: int) -> list[dict[str, object]]:
        found = texts(count, seed)
        return [
            {"input_ids": each.ids, "attention_mask": each.attention_mask, "labels": ORDER.index(label)}
            for each, (_, label) in zip(tokenizer.encode_batch([text for text, _ in found]), found, strict=True)
        ]

    torch.manual_seed(0)
    names = dict(enumerate(ORDER))
    model = BertForSequenceClassification(
        configuration(num_labels=3, id2label=names, label2id={name: at for at, name in names.items()})
    )
    arguments = TrainingArguments(
        output_dir=str(folder / "runs"), num_train_epochs=4, per_device_train_batch_size=16, learning_rate=2e-3,
        report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=rows(400, 5))  # type: ignore[arg-type]
    trainer.train()
    trainer.save_model(str(folder))
    predicted = trainer.predict(rows(150, 6)).predictions.argmax(-1)  # type: ignore[arg-type]
    return float(np.mean(predicted == np.array([ORDER.index(label) for _, label in texts(150, 6)])))


@pytest.fixture(scope="module")
def measured_before() -> dict[str, float]:
    return {}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, measured_before: dict[str, float]) -> Project:
    """A repository with a Trainer's folder and a table; its int8 chain has run."""
    root = tmp_path_factory.mktemp("own") / "project"
    root.mkdir()
    measured_before["accuracy"] = trained(root / "model")
    (root / "reviews").mkdir()
    write_table(root / "reviews" / "train.csv", texts(300, 7), ("review", "category"))
    write_table(root / "reviews" / "test.csv", texts(150, 6), ("review", "category"))
    made = initialized(root, "--model", "model", "--data", "reviews", "--recipe", "int8")
    made.run("slimline", "check", **OFFLINE)
    assert made.repro(**OFFLINE) == [
        "teacher", "quantize", "export@teacher", "export@quantize", "latency", "benchmark", "report", "release",
    ]  # fmt: skip
    return made


def test_init_takes_over_labels_and_columns(project: Project) -> None:
    text = (project.root / "params.yaml").read_text()
    assert "labels: [sport, money, science]" in text
    assert "text: review" in text
    assert "label: category" in text
    assert "training: null" in text.partition("distill:")[0]


def test_the_teacher_is_measured_as_its_trainer_did(project: Project, measured_before: dict[str, float]) -> None:
    stages = project.json("metrics/benchmark.json")["stages"]
    assert isinstance(stages, dict)
    teacher = stages["teacher"]
    assert teacher["accuracy"] == pytest.approx(measured_before["accuracy"], abs=1e-9)
    assert teacher["accuracy"] > 0.9
    assert stages["quantize"]["accuracy"] > teacher["accuracy"] - 0.05
    assert stages["quantize"]["bytes"] < teacher["bytes"]
    assert not (project.root / "curves/teacher/plots").exists()


def test_raw_text_is_answered_over_http_and_offline(project: Project) -> None:
    settings = Settings(release=project.root / "release", event_store="", reload_seconds=0.0)
    rows = texts(40, 9)
    with TestClient(create_app(settings)) as client:
        answer = client.post("/predict", json={"raw": [text for text, _ in rows]})
        assert answer.status_code == 200, answer.text
        served = [each["label"] for each in answer.json()["predictions"]]
    assert np.mean([label == truth for label, (_, truth) in zip(served, rows, strict=True)]) > 0.85
    write_table(project.root / "new.tsv", [(text,) for text, _ in rows], ("text",))
    project.run("slimline", "predict", "release", "new.tsv", "answers.csv")
    with (project.root / "answers.csv").open() as file:
        scored = [row["label"] for row in csv.DictReader(file)]
    assert scored == served


def test_labels_in_another_order_are_an_error_that_says_so(project: Project, tmp_path: Path) -> None:
    copy = project.copy(tmp_path / "p")
    copy.edit("params.yaml", "labels: [sport, money, science]", "labels: [money, science, sport]")
    done = copy.run("dvc", "repro", "teacher", ok=False, **OFFLINE)
    assert done.returncode
    assert "in the order ['sport', 'money', 'science']" in done.stderr
    assert "task.args.labels" in done.stderr


def test_the_release_needs_neither_model_nor_data(project: Project, tmp_path: Path) -> None:
    copy = project.copy(tmp_path / "p")
    for folder in ("model", "reviews", "artifacts"):
        (copy.root / folder).rename(tmp_path / folder)
    (copy.root / "one.jsonl").write_text(json.dumps({"text": "the goal of the team"}) + "\n")
    copy.run("slimline", "predict", "release", "one.jsonl", "answer.csv", offline=True)
    assert "sport" in (copy.root / "answer.csv").read_text()
    assert set(LABELS) == set(ORDER)
