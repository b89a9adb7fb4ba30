"""The application in this process, on real releases."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray
from starlette.testclient import TestClient

from slimline.endpoint.app import create_app
from slimline.endpoint.connection import Connection
from slimline.endpoint.limits import Limits
from slimline.endpoint.settings import Settings
from slimline.task import Split

Serve = Callable[..., TestClient]


@pytest.fixture(scope="session")
def release(two_releases: tuple[Path, Path]) -> Path:
    return two_releases[0]


@pytest.fixture
def serve(release: Path) -> Iterator[Serve]:
    """Start the application with settings (those of ``Limits`` too) and return a client of it."""
    open_clients = []

    def start(**given: Any) -> TestClient:
        limits = Limits(**{name: given.pop(name) for name in list(given) if name in Limits.__dataclass_fields__})
        base: dict[str, Any] = {"release": release, "event_store": "", "reload_seconds": 0.0}
        settings = Settings(**{**base, **given}, limits=limits)
        client = TestClient(create_app(settings), raise_server_exceptions=False)
        client.__enter__()
        open_clients.append(client)
        return client

    yield start
    for client in open_clients:
        client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def client(release: Path) -> Iterator[TestClient]:
    """A client of the application with its default settings and no event store."""
    settings = Settings(release=release, event_store="", reload_seconds=0.0)
    with TestClient(create_app(settings), raise_server_exceptions=False) as made:
        yield made


@pytest.fixture(scope="session")
def rows(splits: dict[str, Split]) -> NDArray[np.float32]:
    """Eight validation images, 8×1×8×8."""
    array: NDArray[np.float32] = splits["validation"].inputs["image"][:8]
    return array


class Server:
    """The application behind a real socket, in a thread of this process."""

    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings)
        config = uvicorn.Config(
            self.app, port=0, loop="uvloop", http=Connection, ws="none", log_config=None, lifespan="on"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server didn't start"
            time.sleep(0.01)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """What runs it, in its thread."""
        return self._server.servers[0].get_loop()

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._server.server_state.connections)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)


@pytest.fixture
def listen(release: Path) -> Iterator[Callable[..., Server]]:
    """Start a real server with settings, as ``serve`` does."""
    servers = []

    def start(**given: Any) -> Server:
        limits = Limits(**{name: given.pop(name) for name in list(given) if name in Limits.__dataclass_fields__})
        base: dict[str, Any] = {"release": release, "event_store": "", "reload_seconds": 0.0}
        servers.append(Server(Settings(**{**base, **given}, limits=limits)))
        return servers[-1]

    yield start
    for each in servers:
        each.stop()


class Load:
    """Clients that ask all the time, and what they saw."""

    def __init__(self, url: str, document: dict[str, Any], clients: int = 4) -> None:
        self.url, self.document = url, document
        self.seen: list[tuple[int, str]] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url) as client:
            while not self._over.is_set():
                answer = client.post("/predict", json=self.document)
                self.seen.append((answer.status_code, answer.json().get("revision", "")))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.01)
