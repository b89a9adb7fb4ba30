"""The application in this process, on real releases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from slimline.endpoint.app import create_app
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
        settings = Settings(**{"release": release, "event_store": "", "reload_seconds": 0.0, **given}, limits=limits)
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
