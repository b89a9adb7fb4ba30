"""Addresses, and a server that isn't there. What a real one answers is tested in tests/tritonserver."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slimline.errors import ParamsError, UnavailableError
from slimline.predictor import Predictor
from slimline.runtimes.triton import Address


def test_an_address_is_read() -> None:
    assert Address.parse("triton+grpc://gpu-1:8001/fashion-mnist") == Address("gpu-1:8001", "fashion-mnist")
    found = Address.parse("triton+grpcs://[::1]:8001/m?timeout=0.5&attempts=1&version=7")
    assert found == Address("[::1]:8001", "m", tls=True, timeout=0.5, attempts=1, version=7)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        pytest.param("triton+http://host:8000/m", r"write triton\+grpc://HOST:PORT/MODEL", id="protocol"),
        pytest.param("triton+grpc://host:8001", "no address of a model", id="no model"),
        pytest.param("triton+grpc:///m", "no address of a model", id="no host"),
        pytest.param("triton+grpc://host:8001/m/versions/2", "no address of a model", id="path"),
        pytest.param("triton+grpc://host:8001/m?timeouts=2", "timeouts: unknown; there are timeout", id="key"),
        pytest.param("triton+grpc://host:8001/m?version=new", "version: 'new' is no number", id="word"),
        pytest.param("triton+grpc://host:8001/m?timeout=0", "timeout: 0 is not above 0", id="zero"),
        pytest.param("triton+grpc://host:8001/m?timeout=nan", "timeout: nan is not above 0", id="NaN"),
        pytest.param("triton+grpc://me:secret@host:8001/m", "no user or password in an address", id="password"),
    ],
)
def test_a_wrong_address_is_named(two_releases: tuple[Path, Path], url: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message) as caught:
        Predictor(two_releases[0], url)
    assert "secret" not in str(caught.value)


def test_without_an_address_its_form_is_told(two_releases: tuple[Path, Path]) -> None:
    with pytest.raises(ParamsError, match=r"it needs an address: write triton\+grpc://HOST:PORT/MODEL"):
        Predictor(two_releases[0], "triton")


def test_a_server_that_is_not_there_is_told_in_time(two_releases: tuple[Path, Path]) -> None:
    with socket.socket() as taken:  # bound, so that nobody else listens there, and never listening itself
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=rf"^triton at 127\.0\.0\.1:{port}: model m: ") as caught:
            Predictor(two_releases[0], f"triton+grpc://127.0.0.1:{port}/m?timeout=1")
    assert time.monotonic() - started < 1.5
    assert "\n" not in str(caught.value)


def test_one_that_accepts_and_says_nothing_is_told_by_the_deadline(two_releases: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=r"no answer within 0\.5 s|unavailable"):
            Predictor(two_releases[0], f"triton+grpc://127.0.0.1:{port}/m?timeout=0.5")
    assert time.monotonic() - started < 1.0


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from slimline.runtimes.triton import Triton; import tritonclient.grpc\n"
        "import slimline.model_repository.repository"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
