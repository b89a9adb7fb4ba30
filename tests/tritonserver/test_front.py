"""The endpoint before a real Triton: what its clients see when Triton is killed, hangs and comes back."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from slimline import manifest
from slimline.endpoint.app import create_app
from slimline.endpoint.settings import Settings
from slimline.events import EventStore
from slimline.predictor import Predictor
from tests.e2e.servers import SERVE, Process
from tests.endpoint.conftest import until

from .conftest import MODEL, Server

AWAY = {"error": "the model's server is away or too slow, try again later"}


@pytest.fixture(scope="module")
def behind(serve: Callable[..., Server], two_releases: tuple[Path, Path]) -> Server:
    return serve([two_releases[0]], largest=16)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('front')}/events.db"


@pytest.fixture(scope="module")
def front(behind: Server, two_releases: tuple[Path, Path], store: str) -> Iterator[TestClient]:
    settings = Settings(
        release=two_releases[0], runtime=f"triton+grpc://{behind.grpc}/{MODEL}?timeout=1", event_store=store,
        reload_seconds=0.0,
    )  # fmt: skip
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def predict(front: TestClient, rows: NDArray[np.float32]) -> httpx.Response:
    return front.post("/predict", json={"inputs": {"image": rows.tolist()}})


def until_back(front: TestClient, rows: NDArray[np.float32]) -> httpx.Response:
    for _ in range(50):
        answer = predict(front, rows)
        if answer.status_code == 200:
            return answer
        time.sleep(0.1)
    raise AssertionError(answer.text)


def best(answer: httpx.Response) -> list[Any]:
    return [each["label"] for each in answer.json()["predictions"]]


def test_the_answers_are_the_releases(
    front: TestClient, two_releases: tuple[Path, Path], rows: NDArray[np.float32]
) -> None:
    answer = predict(front, rows)
    logits = Predictor(two_releases[0], threads=1).predict({"image": rows})["logits"]
    assert answer.json()["revision"] == manifest.digest(two_releases[0])
    assert best(answer) == [str(index) for index in logits.argmax(1)]


def test_a_killed_triton_is_503_in_one_line_until_it_is_back(
    front: TestClient, behind: Server, rows: NDArray[np.float32]
) -> None:
    before = best(predict(front, rows))
    behind.stop(signal.SIGKILL)
    for _ in range(3):
        answer = predict(front, rows)
        assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (503, AWAY, "1")
    assert front.get("/livez").status_code == 200
    behind.start()
    assert best(until_back(front, rows)) == before


def test_a_front_of_its_own_process_says_that_triton_is_gone(
    serve: Callable[..., Server], two_releases: tuple[Path, Path], rows: NDArray[np.float32], tmp_path: Path
) -> None:
    """As docs/triton.md starts it. The model isn't ready, the process is: it takes labels."""
    behind = serve([two_releases[0]], largest=16)
    environment = os.environ | {
        "SLIMLINE_RUNTIME": f"triton+grpc://{behind.grpc}/{MODEL}", "SLIMLINE_RELEASE": str(two_releases[0]),
        "SLIMLINE_EVENT_STORE": f"sqlite:///{tmp_path}/events.db",
    }  # fmt: skip
    process = Process(SERVE, environment, tmp_path / "front.log")
    ready = ["/v2/health/ready", f"/v2/models/{MODEL}/ready"]
    document = {"inputs": {"image": rows.tolist()}, "id": "mine"}
    try:
        with httpx.Client(base_url=process.url, timeout=30) as client:
            assert client.get(f"/v2/models/{MODEL}").json()["platform"] == "triton"
            before = best(client.post("/predict", json=document))
            assert [client.get(path).status_code for path in ready] == [200, 200]
            behind.stop(signal.SIGKILL)
            answer = client.post("/predict", json=document)
            assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (503, AWAY, "1")
            assert [client.get(path).status_code for path in ready] == [503, 503]
            assert [client.get(path).status_code for path in ("/livez", "/readyz")] == [200, 200]
            assert client.post("/feedback", json={"id": "mine", "label": "3"}).status_code == 200
            behind.start()
            until(lambda: [client.get(path).status_code for path in ready] == [200, 200])
            assert best(client.post("/predict", json=document)) == before
    finally:
        process.stop()
    assert "Traceback" not in process.log.read_text()


def test_a_triton_that_hangs_holds_up_nothing_but_its_own_requests(
    front: TestClient, behind: Server, rows: NDArray[np.float32]
) -> None:
    for _ in range(200):  # the batcher learns how quick it is
        predict(front, rows[:1])
    behind.send(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(9) as pool:
            started = time.monotonic()
            waiting = [pool.submit(predict, front, rows[:1]) for _ in range(8)]
            time.sleep(0.2)
            asked = time.monotonic()
            assert pool.submit(front.get, "/livez").result().status_code == 200
            assert time.monotonic() - asked < 0.5
            answers = [each.result() for each in waiting]
            # the first alone, those that came meanwhile together: a second each, not eight
            assert time.monotonic() - started < 4
        assert {(each.status_code, each.text) for each in answers} == {(503, answers[0].text)}
        assert answers[0].json() == AWAY
    finally:
        behind.send(signal.SIGCONT)
    until_back(front, rows)


def test_triton_killed_under_load_loses_nothing_that_was_told(
    front: TestClient, behind: Server, rows: NDArray[np.float32], store: str
) -> None:
    """Clients see answers, then 503 with Retry-After, then answers; labels are taken all the while."""
    document = {"inputs": {"image": rows[:1].tolist()}}
    answered: list[str] = []
    labelled: list[str] = []
    refused: list[httpx.Response] = []
    over = threading.Event()

    def ask(who: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            name = f"load-{who}-{number}"
            answer = front.post("/predict", json={**document, "id": name})
            if answer.status_code != 200:
                refused.append(answer)
                time.sleep(0.05)
                continue
            answered.append(name)

    def label() -> None:
        at = 0
        while not over.is_set():
            if at == len(answered):
                time.sleep(0.01)
                continue
            assert front.post("/feedback", json={"id": answered[at], "label": "3"}).status_code == 200
            labelled.append(answered[at])
            at += 1

    threads = [threading.Thread(target=ask, args=(who,)) for who in range(3)] + [threading.Thread(target=label)]
    for each in threads:
        each.start()
    try:
        until(lambda: len(answered) > 30)
        behind.stop(signal.SIGKILL)
        until(lambda: len(refused) > 5)
        told = len(labelled)
        behind.start()
        before = len(answered)
        until(lambda: len(answered) > before + 30)
        assert len(labelled) > told
    finally:
        over.set()
        for each in threads:
            each.join()
    assert {(each.status_code, each.text, each.headers["retry-after"]) for each in refused} == {
        (503, json.dumps(AWAY, separators=(",", ":")), "1")
    }
    core = front.app.state.core  # type: ignore[attr-defined]
    assert core.recorder._writer.flush(10)
    with EventStore.open(store) as events:
        kept = {each.id for each in events.predictions()}
        assert set(answered) <= kept
        for name in labelled:
            assert [each.label for each in events.history(name)] == ["3"]
