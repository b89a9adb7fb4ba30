"""A release that reads text, asked with token numbers and with texts."""

from __future__ import annotations

import asyncio
import csv
import json
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from slimline import preprocess, tokens
from slimline.endpoint.app import create_app
from slimline.endpoint.batching import Batcher, Run
from slimline.endpoint.limits import Limits
from slimline.endpoint.loaded import Loaded
from slimline.endpoint.metrics import Metrics
from slimline.endpoint.settings import Settings
from slimline.endpoint.speed import Speed
from slimline.errors import DataError
from slimline.predictor import Predictor
from slimline.scoring import score
from slimline.tokens import fills
from tests.encoders import LABELS
from tests.endpoint.conftest import Serve, Server
from tests.text_releases import without_ranges

ODD = [[-5, 99_999_999]]


def ask(client: TestClient, path: str, ids: list[list[int]]) -> httpx.Response:
    """Send token numbers as /predict or v2 takes them."""
    if path == "/predict":
        return client.post(path, json={"inputs": {"input_ids": ids}})
    sent = {"name": "input_ids", "shape": [len(ids), len(ids[0])], "datatype": "INT64", "data": ids}
    return client.post(path, json={"inputs": [sent]})


PATHS = pytest.mark.parametrize("path", ["/predict", "/v2/models/text/infer"])


@PATHS
def test_a_number_out_of_the_vocabulary_is_refused_in_one_line(serve: Serve, text_release: Path, path: str) -> None:
    answer = ask(serve(release=text_release), path, ODD)
    assert (answer.status_code, answer.json()) == (
        400, {"error": "input 'input_ids': holds -5, expected numbers from 0 to 88"},
    )  # fmt: skip


@PATHS
def test_a_release_that_says_no_range_refuses_what_its_model_does(
    serve: Serve,
    text_release: Path,
    resealed: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    path: str,
) -> None:
    client = serve(release=without_ranges(text_release, tmp_path / "release", resealed))
    with caplog.at_level(logging.ERROR):
        answer = ask(client, path, ODD)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"].startswith("the model can't take these values: indices element out of data bounds")
    assert not caplog.records
    assert ask(client, path, [[2, 3]]).status_code == 200


def test_a_wrong_number_fails_no_request_beside_it(
    listen: Callable[..., Server], text_release: Path, resealed: Callable[..., Path], tmp_path: Path
) -> None:
    server = listen(release=without_ranges(text_release, tmp_path / "release", resealed))

    async def run() -> list[int]:
        async with httpx.AsyncClient(base_url=server.url) as client:
            sent: list[Any] = [[[2, 7]], [[2, 99_999_999]], [[2, 9]], [[2, 11]]] * 4
            answers = await asyncio.gather(
                *(client.post("/predict", json={"inputs": {"input_ids": ids}}) for ids in sent)
            )
            return [each.status_code for each in answers]

    assert asyncio.run(run()) == [200, 400, 200, 200] * 4


def test_without_tokenizers_the_start_fails_in_one_line(text_release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    tokens._tokenizer.cache_clear()
    app = create_app(Settings(release=text_release, event_store="", reload_seconds=0.0))
    with (
        pytest.raises(DataError, match=r"^tokenizers is not installed: pip install 'slimline\[text\]'$"),
        TestClient(app),
    ):
        pass


def test_pairs_are_lists_of_two_texts(serve: Serve, pair_release: Path, tmp_path: Path) -> None:
    """As `slimline predict` reads them."""
    client = serve(release=pair_release, max_text_chars=100)
    pairs = [["the bank", "a goal"], ["a goal", "the bank said a new rate"], ["atom", ""]]
    answer = client.post("/predict", json={"raw": pairs})
    assert answer.status_code == 200, answer.text
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps({"text": pair}) + "\n" for pair in pairs))
    score(pair_release, tmp_path / "pairs.jsonl", tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open() as file:
        scored = list(csv.DictReader(file))
    for row, each in zip(scored, answer.json()["predictions"], strict=True):
        assert each["label"] == row["label"]
        assert {label: pytest.approx(float(row[f"probability.{label}"]), abs=1e-4) for label in LABELS} == each[
            "probabilities"
        ]


@pytest.mark.parametrize("row", ["a", ["a"], ["a", "b", "c"], ["a", 5], {"a": "b"}, None])
def test_what_is_no_pair_is_refused(serve: Serve, pair_release: Path, row: Any) -> None:
    answer = serve(release=pair_release).post("/predict", json={"raw": [["a", "b"], row]})
    assert (answer.status_code, answer.json()) == (400, {"error": '"raw": row 1: expected a list of two texts'})


def test_a_pair_for_single_texts_is_refused_and_a_long_one_is_413(
    serve: Serve, text_release: Path, pair_release: Path
) -> None:
    answer = serve(release=text_release).post("/predict", json={"raw": [["a", "b"]]})
    assert (answer.status_code, answer.json()) == (400, {"error": '"raw": row 0: expected text'})
    answer = serve(release=pair_release, max_text_chars=10).post("/predict", json={"raw": [["a", "b" * 11]]})
    assert answer.status_code == 413


def test_texts_of_too_many_characters_together_are_refused(serve: Serve, text_release: Path) -> None:
    """Each alone is within the limit: 160 such, a body of 16 MB, took 4.8 s."""
    client = serve(release=text_release, max_text_chars=100, max_request_chars=250)
    assert client.post("/predict", json={"raw": ["a" * 100] * 2}).status_code == 200
    answer = client.post("/predict", json={"raw": ["a" * 100] * 3})
    assert (answer.status_code, "of more than 250 characters together" in answer.text) == (413, True)


def test_long_texts_hold_up_nobody_else(
    listen: Callable[..., Server], text_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they are split into tokens, /livez answers."""
    splits, answered = threading.Event(), threading.Event()
    run = preprocess.run

    def slow(*args: Any) -> Any:
        splits.set()
        assert answered.wait(10), "/livez didn't answer"
        return run(*args)

    server = listen(release=text_release)
    monkeypatch.setattr(preprocess, "run", slow)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.post, f"{server.url}/predict", json={"raw": ["goal " * 1000] * 20}, timeout=30)
        assert splits.wait(10)
        assert httpx.get(f"{server.url}/livez", timeout=5).status_code == 200
        answered.set()
        assert asked.result().status_code == 200


@pytest.mark.parametrize("pair", [False, True], ids=["texts", "pairs"])
def test_texts_of_several_lengths_in_one_batch_are_answered_as_each_alone(
    text_release: Path, pair_release: Path, pair: bool
) -> None:
    release = pair_release if pair else text_release
    document = preprocess.read(release / "chain" / "teacher")
    values: list[Any] = ["goal bank atom", "the bank said a new rate", "the new rate of the bank"]
    values = [[each, "goal"] for each in values] if pair else values
    inputs = [preprocess.run(document, [each]) for each in values]
    assert len({each["input_ids"].shape for each in inputs}) > 1
    predictor = Predictor(release, threads=1)
    batcher = Batcher(
        predictor.runtime.run, Speed({}), max_rows=8, max_waiting=8, fills=fills(document, predictor.signature)
    )

    async def run() -> list[Run]:
        return await asyncio.gather(*(batcher.predict(each, 1) for each in [inputs[0], *inputs]))

    _, *together = asyncio.run(run())
    assert [each.rows for each in together] == [3, 3, 3]
    for each, alone in zip(together, inputs, strict=True):
        np.testing.assert_allclose(each.outputs["logits"], predictor.predict(alone)["logits"], rtol=1e-4, atol=1e-5)


def test_a_short_text_is_not_filled_up_to_more_than_twice_its_length(text_release: Path) -> None:
    asked: list[int] = []

    def model(inputs: dict[str, Any]) -> dict[str, Any]:
        asked.append(inputs["input_ids"].shape[1])
        return {"y": inputs["input_ids"][:, 0]}

    batcher = Batcher(model, Speed({}), max_rows=8, max_waiting=8, fills={"input_ids": 0})

    async def run() -> None:
        rows = [np.ones((1, length), np.int64) for length in (3, 4, 8, 9)]
        await asyncio.gather(*(batcher.predict({"input_ids": each}, 1) for each in rows))

    asyncio.run(run())
    assert asked == [3, 8, 9]


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_rows_are_filled_up_only_where_that_changes_no_answer(
    text_release: Path, monkeypatch: pytest.MonkeyPatch, noise: float
) -> None:
    """Of a model whose ranges are each batch's own, it would."""
    live = Loaded(text_release, "default", Limits(), Metrics())
    run = live.predictor.runtime.run
    changed = lambda inputs: {name: each + noise * inputs["input_ids"].shape[1] for name, each in run(inputs).items()}  # noqa: E731
    monkeypatch.setattr(live.predictor.runtime, "run", changed)
    assert live._fills() == ({} if noise else {"input_ids": 0})
    live.close()
