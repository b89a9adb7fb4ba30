"""Connections are taken as fast as requests are answered, by a worker that is busy; by an idle one singly."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from slimline.endpoint import accepting
from slimline.endpoint.accepting import Loop, auto


class Protocol(asyncio.Protocol):
    """What the loop looks at of uvicorn's: the requests in hand."""

    def __init__(self, in_hand: int, made: list[asyncio.BaseTransport]) -> None:
        self.server_state = SimpleNamespace(tasks=range(in_hand))
        self._made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made.append(transport)
        transport.write(b"hello")  # type: ignore[attr-defined]


@pytest.fixture
def loop() -> Iterator[Loop]:
    """The loop, closed at the end."""
    loop = Loop()
    yield loop
    loop.close()


def taken(loop: Loop, in_hand: int, count: int, turns: int) -> int:
    """Connect ``count`` clients, run the loop a few turns and return how many were taken; then all say goodbye."""
    made: list[asyncio.BaseTransport] = []
    server = loop.run_until_complete(loop.create_server(lambda: Protocol(in_hand, made), "127.0.0.1", 0))
    address = server.sockets[0].getsockname()
    clients = [socket.create_connection(address, 5) for _ in range(count)]
    for _ in range(turns):
        loop.run_until_complete(asyncio.sleep(0))
    found = len(made)
    for _ in range(1000):
        if len(made) < count:
            loop.run_until_complete(asyncio.sleep(0.001))
    answers = [client.recv(5) for client in clients]
    server.close()
    for each in (*made, *clients):
        each.close()
    loop.run_until_complete(asyncio.sleep(0.01))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 1)
    assert answers == [b"hello"] * count
    return found


def test_a_busy_worker_takes_as_many_as_it_has_requests_and_an_idle_one_singly(loop: Loop) -> None:
    singly, busy = taken(loop, 0, 60, 2), taken(loop, 60, 60, 8)
    assert busy == 60
    assert singly < 15


def test_a_turn_has_an_end(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "MOST", 4)
    assert taken(loop, 10_000, 60, 2) < 60


def test_uvicorn_gets_the_loop_by_name() -> None:
    assert auto(use_subprocess=True) is Loop
