"""A linear SVM on the same rows as the networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimline.teachers.baselines import tfidf_svm
from tests.encoders import texts, write_table
from tests.tasks.text.conftest import make

pytest.importorskip("tokenizers")


def test_a_linear_svm_is_measured_on_the_same_rows(folder: Path) -> None:
    task = make(str(write_table(folder / "t.csv", texts(300))))
    ((name, found),) = task.baselines().items()
    assert name == "TF-IDF + linear SVM"
    assert found["accuracy"] > 0.95
    assert found["bytes"] > 100
    assert found["latency_ms"] > 0
    assert len(task.rows_of("test")) == len(task.splits()["test"])


def test_a_linear_svm_sees_no_more_rows_than_the_networks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make(str(write_table(folder / "t.csv", texts(300))))
    seen: dict[str, Any] = {}

    def watched(train: list[str], y: Any, test: list[str], seed: int) -> Any:
        seen.update(train=task.tokens(train)["input_ids"], y=y, test=task.tokens(test)["input_ids"])
        return tfidf_svm(train, y, test, seed)

    monkeypatch.setattr("slimline.tasks.text.tfidf_svm", watched)
    measured = task.baselines(limit=24)["TF-IDF + linear SVM"]
    splits = {name: split.head(24) for name, split in task.splits().items()}
    for part in ("train", "test"):
        np.testing.assert_array_equal(seen[part], splits[part].inputs["input_ids"])
    np.testing.assert_array_equal(seen["y"], splits["train"].targets)
    assert measured["accuracy"] * 24 == pytest.approx(round(measured["accuracy"] * 24))
