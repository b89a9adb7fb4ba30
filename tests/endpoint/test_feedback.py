"""Predictions are recorded off the request's path; a label is acknowledged once it is durable."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from slimline.events import EventStore
from tests.endpoint.conftest import Serve


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/events.db"


def flushed(client: TestClient) -> None:
    writer = client.app.state.core.recorder._writer  # type: ignore[attr-defined]
    assert writer.flush(10)


def test_predictions_and_labels_meet_in_the_store(serve: Serve, rows: NDArray[np.float32], store: str) -> None:
    client = serve(event_store=store)
    answer = client.post("/predict", json={"inputs": {"image": rows.tolist()}, "id": "order-7"}).json()
    flushed(client)
    label = answer["predictions"][1]["label"]
    first = client.post("/feedback", json={"id": "order-7", "index": 1, "label": label})
    assert (first.status_code, first.json()) == (200, {"id": "order-7", "index": 1, "outcome": "new"})
    assert client.post("/feedback", json={"id": "order-7", "index": 1, "label": label}).json()["outcome"] == "duplicate"
    other = "3" if label != "3" else "4"
    corrected = client.post("/feedback", json={"id": "order-7", "index": 1, "label": other})
    assert corrected.json()["outcome"] == "corrected"
    early = client.post("/feedback", json={"id": "later", "label": "3"})
    note = "no prediction of this id is stored yet: the label is kept, and counts once there is one"
    assert early.json() == {"id": "later", "index": 0, "outcome": "early", "note": note}
    beyond = client.post("/feedback", json={"id": "order-7", "index": 8, "label": "3"})
    assert (beyond.status_code, beyond.json()["outcome"]) == (422, "no such row")
    with EventStore.open(store) as events:
        (prediction,) = events.find("order-7")
        assert (prediction.revision, prediction.variant) == (answer["revision"], "default")
        expected = [list(each["probabilities"].values()) for each in answer["predictions"]]
        np.testing.assert_allclose(prediction.outputs, expected)
        assert prediction.latency.keys() == {"decode", "queue", "predict", "encode", "total"}
        (labelled,) = events.labelled()
        assert (labelled.index, labelled.label) == (1, other)


def test_several_labels_come_at_once(serve: Serve, store: str) -> None:
    client = serve(event_store=store)
    labels = [{"id": f"n{number}", "label": "5"} for number in range(3)]
    answer = client.post("/feedback", json={"labels": labels})
    assert [(each["outcome"], "note" in each) for each in answer.json()["labels"]] == [("early", True)] * 3


def test_a_sampled_request_is_asked_of_every_stage(serve: Serve, rows: NDArray[np.float32], store: str) -> None:
    client = serve(event_store=store, sample=1.0)
    client.post("/predict", json={"inputs": {"image": rows.tolist()}, "id": "one"})
    flushed(client)
    with EventStore.open(store) as events:
        (prediction,) = events.predictions(sampled=True)
        assert prediction.stages is not None
        assert prediction.stages.keys() == {"teacher", "distill"}
        assert prediction.inputs is None


def test_while_the_store_is_away_predictions_are_answered_and_labels_are_not(
    serve: Serve, rows: NDArray[np.float32], tmp_path: Path
) -> None:
    client = serve(event_store=f"sqlite:///{tmp_path}/missing/folder/events.db")
    assert client.post("/predict", json={"inputs": {"image": rows.tolist()}}).status_code == 200
    answer = client.post("/feedback", json={"id": "a", "label": "3"})
    assert answer.status_code == 503
    assert answer.json()["error"].startswith("the event store is away, nothing was kept")
    assert answer.headers["retry-after"] == "1"
    assert re.search(r"^slimline_events_waiting\{.*\} 1\.0$", client.get("/metrics").text, re.MULTILINE)
    (tmp_path / "missing" / "folder").mkdir(parents=True)
    assert client.post("/feedback", json={"id": "a", "label": "3"}).status_code == 200


def test_an_acknowledged_label_is_on_the_disk(serve: Serve, store: str) -> None:
    """Another connection reads it as soon as the answer is there."""
    client = serve(event_store=store)
    assert client.post("/feedback", json={"id": "a", "label": "3"}).status_code == 200
    with sqlite3.connect(store.removeprefix("sqlite:///")) as other:
        tables = [name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        assert sum(other.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables if "label" in name)  # noqa: S608


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, '"id": expected printable text'),
        ({"id": "a"}, '"label" is missing'),
        ({"id": "a", "label": None}, '"label": expected text, a number'),
        ({"id": "a", "label": "eleven"}, '"label": no label of this model'),
        ({"id": "a", "label": ["3", "eleven"]}, '"label": no label of this model'),
        ({"id": "a", "label": 3}, '"label": no label of this model'),
        ({"id": "a", "label": "3", "index": -1}, '"index": expected the row'),
        ({"id": "a", "label": "3", "index": True}, '"index": expected the row'),
        ({"id": "a", "label": "3", "row": 1}, '"row": unknown key'),
        ({"labels": []}, '"labels": expected a list'),
        ({"labels": [3]}, "a label is an object"),
        ({"labels": [{"id": "a", "label": "3"}] * 1001}, '"labels": expected a list of 1 to 1000 labels'),
        ({"id": "a", "label": ["3"] * 1001}, '"label": expected text, a number'),
        ({"id": "a", "label": "3" * 1001}, '"label": at most 1000 characters'),
        ({"id": "a", "label": "3", "index": 2**31}, '"index": expected the row'),
    ],
)
def test_what_is_no_label_is_refused(client: TestClient, document: Any, message: str) -> None:
    answer = client.post("/feedback", json=document)
    assert (answer.status_code, message in answer.json()["error"]) == (400, True), answer.text
