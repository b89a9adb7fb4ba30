"""A real tritonserver: PyPI's, with the python backend, in an environment that holds neither Slimline nor torch."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from slimline.model_repository.repository import Options, write
from slimline.task import Split
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
ENVIRONMENT = Path(os.environ.get("TRITONSERVER_VENV", ROOT / ".venv" / "triton"))
PYTHON = ENVIRONMENT / "bin" / "python"
MODEL = "digits"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what stands here, and skip it where make test-triton hasn't installed the server."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.triton)
            if not PYTHON.is_file():
                item.add_marker(pytest.mark.skip(reason="no tritonserver: make test-triton installs it"))


class Server:
    """tritonserver on a repository, at a port that stays the same when it is started again."""

    def __init__(self, repository: Path, folder: Path, *options: str, **variables: str) -> None:
        self.repository, self.log = repository, folder / "tritonserver.log"
        self.port = free_ports()
        self.http, self.grpc = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.port + 1}"
        self._prefix = f"slimline-test-{os.getpid()}-{self.port}-"
        script = ROOT / "serving" / "tritonserver" / "start.py"
        self._command = [
            str(PYTHON), str(script), str(repository), f"--port={self.port}", f"--backends={folder / 'backends'}",
            *options, f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            "--exit-timeout-secs=2",
        ]  # fmt: skip
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        """Start and wait until every model is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, start_new_session=True, env=os.environ | self._variables
            )
        deadline = time.monotonic() + 60
        while not self.is_ready():
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)
        return self

    def is_ready(self) -> bool:
        try:
            return self.get("/v2/health/ready")[0] == 200
        except OSError:
            return False

    def get(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        """Return status and text of a GET, or of a POST when there is a body."""
        request = urllib.request.Request(f"http://{self.http}{path}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Return one value of the server's metrics."""
        address = f"http://127.0.0.1:{self.port + 2}/metrics"
        text = urllib.request.urlopen(address, timeout=30).read().decode()
        for line in text.splitlines():
            found = re.fullmatch(rf"{name}{{(.*)}} (\S+)", line)
            if found and all(f'{key}="{value}"' in found[1] for key, value in labels.items()):
                return float(found[2])
        raise AssertionError(f"no {name} {labels} in:\n{text}")

    def send(self, which: signal.Signals) -> None:
        """Send a signal to the server, not to its stubs."""
        if self._process is not None:
            self._process.send_signal(which)
            deadline = time.monotonic() + 10
            while which is signal.SIGSTOP and psutil.Process(self._process.pid).status() != psutil.STATUS_STOPPED:
                assert time.monotonic() < deadline
                time.sleep(0.001)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal, wait for the end, and sweep what a killed server leaves."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(20)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # its stubs
            self._process.wait(20)
            self._process = None
            for left in Path("/dev/shm").glob(f"{self._prefix}*"):  # noqa: S108
                left.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Write a repository from releases and start a server on it, with ``options`` of start.py."""
    running: list[Server] = []

    def start(releases: list[Path], *options: str, variables: dict[str, str] | None = None, **chosen: Any) -> Server:
        folder = tmp_path_factory.mktemp("tritonserver")
        write(releases, folder / "repository", Options(backend="python", **chosen))
        running.append(Server(folder / "repository", folder, *options, **variables or {}))
        return running[-1].start()

    yield start
    for server in running:
        server.send(signal.SIGTERM)
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def server(serve: Callable[..., Server], two_releases: tuple[Path, Path]) -> Server:
    """Two releases as versions 1 and 2, batches of up to 16 rows, 30 ms to gather them."""
    return serve(list(two_releases), largest=16, delay=30_000)


@pytest.fixture(scope="session")
def rows(splits: dict[str, Split]) -> NDArray[np.float32]:
    """Twelve validation rows, as the model takes them."""
    return splits["validation"].inputs["image"][:12].copy()
