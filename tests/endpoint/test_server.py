"""``slimline serve`` as a process: what it says when it starts, and when it can't."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from slimline import manifest
from slimline.deployment import short
from slimline.endpoint.app import create_app
from slimline.endpoint.server import ROUTES, check_free
from slimline.endpoint.settings import Settings
from slimline.errors import ParamsError

SERVE = [sys.executable, "-m", "slimline", "serve"]


def test_the_start_says_what_is_served_and_where(release: Path, tmp_path: Path) -> None:
    settings = os.environ | {"SLIMLINE_RELEASE": str(release)}
    command = [*SERVE, "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=settings, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        while not said or ROUTES not in said[-1]:
            said.append(process.stderr.readline())
            assert said[-1], "".join(said)
        revision = short(manifest.digest(release))
        (url,) = re.findall(
            rf"serving {release} \(digits, revision {revision}\) at (http://127\.0\.0\.1:\d+)$", said[-2]
        )
        assert httpx.get(f"{url}/readyz").status_code == 200
        process.terminate()
    assert (tmp_path / "events.db").is_file()
    assert not any("alembic" in line for line in said)


def test_the_routes_that_are_said_are_there(release: Path) -> None:
    app = create_app(Settings(release=release, event_store=""))
    paths = {route.path for route in app.routes}  # type: ignore[attr-defined]
    assert set(re.findall(r"/[a-z0-9.]+", ROUTES)) <= paths


def test_a_port_that_is_taken_is_one_line_with_a_hint(release: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = [*SERVE, str(release), "--port", str(port)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2, f"error: --port {port}: another process listens there; give another, or 0 for any\n",
    )  # fmt: skip
    check_free("127.0.0.1", port)


def test_an_address_that_is_not_this_machines_is_named() -> None:
    with pytest.raises(ParamsError, match=r"^--host 192\.0\.2\.1 --port 0: "):
        check_free("192.0.2.1", 0)


def test_one_address_of_a_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, 0)) for host in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    check_free("localhost", 0)
