"""Slow and broken clients over real sockets."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from slimline.endpoint.speed import Speed
from tests.endpoint.conftest import Server, until

HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"


def test_half_a_body_and_silence_ends_with_408(listen: Callable[..., Server]) -> None:
    server = listen(body_seconds=0.3)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(HEAD + b'{"inputs":')
        client.settimeout(5)
        start = time.monotonic()
        answer = client.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'{"error":"the body wasn\'t whole after 0.3 s"}' in answer
        assert 0.2 < time.monotonic() - start < 3
        assert client.recv(4096) == b""  # and the connection is closed
    assert httpx.get(f"{server.url}/livez").status_code == 200


def test_a_client_that_hangs_up_leaves_nothing_behind(listen: Callable[..., Server]) -> None:
    server = listen()
    core = server.app.state.core
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(HEAD + b'{"inputs":')
    deadline = time.monotonic() + 5
    while core.in_progress and time.monotonic() < deadline:
        time.sleep(0.01)
    assert core.in_progress == 0
    assert 'status="499"' in httpx.get(f"{server.url}/metrics").text


def test_too_many_at_once_are_shed(listen: Callable[..., Server]) -> None:
    server = listen(max_in_progress=2, body_seconds=5)
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
    for client in slow:
        client.sendall(HEAD)
    core = server.app.state.core
    deadline = time.monotonic() + 5
    while core.in_progress < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    answer = httpx.post(f"{server.url}/predict", json={})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert httpx.get(f"{server.url}/readyz").status_code == 200  # probes are never shed
    for client in slow:
        client.close()


def test_a_full_queue_is_told_to_come_again(listen: Callable[..., Server], rows: NDArray[np.float32]) -> None:
    server = listen(max_waiting_rows=8)
    batcher = server.app.state.core.variants.primary.live.batcher
    run = batcher._run

    def slow(inputs: Any) -> Any:
        time.sleep(0.5)
        return run(inputs)

    batcher._run = slow
    batcher._speed = Speed({})  # not known to be quick: it runs in the worker thread
    document = {"inputs": {"image": rows.tolist()}}
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(httpx.post, f"{server.url}/predict", json=document, timeout=30) for _ in range(6)]
        answers = [each.result() for each in asked]
    assert Counter(each.status_code for each in answers).keys() == {200, 429}
    for each in answers:
        if each.status_code == 429:
            assert int(each.headers["retry-after"]) >= 1
            assert each.json() == {"error": "the queue is full, try again later"}


def test_bodies_beyond_the_memory_meant_for_them_are_shed(listen: Callable[..., Server]) -> None:
    server = listen(max_held_bytes=300_000, body_seconds=5)
    head = HEAD.replace(b"100", b"200000")
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(head + b"x" * 199_999)
        room = server.app.state.core.room
        until(lambda: room.left < 150_000)
        refused = httpx.post(f"{server.url}/predict", content=b"x" * 200_000, headers={"content-type": "image/png"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert httpx.post(f"{server.url}/predict", json={}).status_code == 400  # small ones are let in
        slow.sendall(b"x")
        slow.settimeout(5)
        assert slow.recv(4096).startswith(b"HTTP/1.1 400 ")
    until(lambda: room.left == 300_000)


@pytest.mark.parametrize(
    ("path", "token", "status"), [("/predict", "", 401), ("/feedback", "predict-token-000001", 403)]
)
def test_who_may_not_ask_is_not_read_on(listen: Callable[..., Server], path: str, token: str, status: int) -> None:
    server = listen(tokens="predict predict-token-000001")
    head = HEAD.replace(b"/predict", path.encode()).replace(b": 100", b": 15000000")
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(2)
        client.sendall(head.replace(b"host: x", f"host: x\r\nauthorization: Bearer {token}".encode()) + b"x" * 1000)
        answer = until_closed(client)
    assert answer.startswith(b"HTTP/1.1 %d " % status)


def until_closed(client: socket.socket) -> bytes:
    parts = []
    with suppress(ConnectionResetError):  # it closed before it had read everything
        while part := client.recv(4096):
            parts.append(part)
    return b"".join(parts)


def test_what_is_no_http_is_refused(listen: Callable[..., Server]) -> None:
    server = listen()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n")
        client.settimeout(5)
        assert client.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"{server.url}/livez").status_code == 200
