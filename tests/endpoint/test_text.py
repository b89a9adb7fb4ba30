"""A release that reads text, asked with token numbers and with texts."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from slimline import tokens
from slimline.endpoint.app import create_app
from slimline.endpoint.settings import Settings
from slimline.errors import DataError
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
