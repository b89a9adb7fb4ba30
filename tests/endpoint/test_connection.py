"""Heads without an end: what a client that says nothing useful may hold, and for how long."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest

from slimline.endpoint import connection
from tests.endpoint.conftest import Server, until

CHUNK = b"a" * 65_536


def reply(client: socket.socket) -> bytes:
    """Return all that comes until the server closes."""
    client.settimeout(5)
    parts = []
    try:
        while part := client.recv(65_536):
            parts.append(part)
    except ConnectionResetError:  # it closed before it had read everything
        pass
    return b"".join(parts)


@pytest.mark.parametrize("start", [b"GET /", b"GET /livez HTTP/1.1\r\nx: ", b"GET /livez HTTP/1.1\r\n"])
def test_an_endless_head_is_refused_early(listen: Callable[..., Server], start: bytes) -> None:
    server = listen()
    filler = b"x: a\r\n" * 10_000 if start.endswith(b"\n") else CHUNK
    sent = 0
    with socket.create_connection(("127.0.0.1", server.port)) as client, suppress(OSError):
        client.sendall(start)
        while sent < 100e6:
            client.sendall(filler)
            sent += len(filler)
    assert sent < 16e6, "what the sockets' buffers hold, and no more"
    assert httpx.get(f"{server.url}/livez").status_code == 200


def test_a_head_that_is_too_large_is_told(listen: Callable[..., Server]) -> None:
    server = listen()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nx: ")
        for _ in range(3):  # read one by one: the last is beyond the limit, and nothing follows it
            time.sleep(0.1)
            client.sendall(b"a" * 40_000)
        assert reply(client).startswith(b"HTTP/1.1 431 ")


def test_many_headers_within_the_limit_are_fine(listen: Callable[..., Server]) -> None:
    headers = {f"x-{number}": "a" * 100 for number in range(400)}
    assert httpx.get(f"{listen().url}/livez", headers=headers).status_code == 200


@pytest.mark.parametrize("said", [b"", b"GET /livez HT", b"\r\n", b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\nGET /"])
def test_half_a_head_and_silence_ends(
    listen: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.4)
    server = listen()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(said)
        started = time.monotonic()
        answered = reply(client)
        assert 0.3 < time.monotonic() - started < 3
    assert answered.count(b"HTTP/1.1 200") == said.count(b"host")


def test_a_slow_head_that_gets_whole_in_time_is_answered_and_the_connection_stays(
    listen: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.5)
    server = listen()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(5)
        for _ in range(2):
            for part in (b"GET /li", b"vez HTTP/1.1\r\n", b"host: x\r\n\r\n"):
                time.sleep(0.05)
                client.sendall(part)
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        time.sleep(0.8)  # between requests the keep-alive timeout counts, not the head's
        client.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_client_that_takes_no_answer_is_cut_off(
    listen: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "READ_SECONDS", 0.4)
    server = listen()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.settimeout(1)
        with suppress(OSError):
            for _ in range(20_000):
                client.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n")
        until(lambda: not server.connections, 10)
    assert httpx.get(f"{server.url}/livez").status_code == 200


def test_a_slow_reader_gets_its_answer(listen: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_SECONDS", 0.5)
    server = listen()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.settimeout(5)
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 60)
        read = b""
        while read.count(b"HTTP/1.1 200 OK") < 60:
            time.sleep(0.02)
            read += client.recv(32_768)
