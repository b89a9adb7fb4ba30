"""Real server processes: ``slimline serve`` and the BentoML service, started, scanned, stopped and killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from slimline.events import EventStore
from slimline.manifest import digest
from slimline.task import Split
from tests.e2e.conftest import BIN
from tests.endpoint.conftest import Load, until

ROOT = Path(__file__).parents[2]
SERVE = [str(BIN / "slimline"), "serve"]
BENTO = [sys.executable, "-m", "bentoml", "serve", "serving.service:Slimline", "--host", "127.0.0.1"]
KINDS = pytest.mark.parametrize("command", [SERVE, BENTO], ids=["alone", "bentoml"])


@pytest.fixture(scope="module")
def rows(splits: dict[str, Split]) -> NDArray[np.float32]:
    array: NDArray[np.float32] = splits["validation"].inputs["image"][:8]
    return array


@pytest.fixture(scope="module")
def document(rows: NDArray[np.float32]) -> dict[str, Any]:
    return {"inputs": {"image": rows[:1].tolist()}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def workers_of(pid: int) -> list[psutil.Process]:
    """Return BentoML's worker processes."""
    found = []
    for each in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "_bentoml_impl" in " ".join(each.cmdline()):
                found.append(each)
    return found


class Process:
    """A server process of its own, with its log and the processes it started."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        started = time.monotonic()
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)], cwd=ROOT, env=environment, stdout=out, stderr=out
            )
        until(self._is_ready, 60)
        self.seconds_to_ready = time.monotonic() - started

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/readyz", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def worker(self) -> psutil.Process:
        """The process that answers."""
        children = workers_of(self.process.pid)
        return children[0] if children else psutil.Process(self.process.pid)

    def metrics(self) -> str:
        return httpx.get(f"{self.url}/metrics").text

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


@pytest.fixture
def run(two_releases: tuple[Path, Path], tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start ``command`` on the first release and return it when it is ready; keywords are SLIMLINE_… settings."""
    processes = []

    def start(command: list[str], **settings: str) -> Process:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SLIMLINE_")}
        environment |= {
            "SLIMLINE_RELEASE": str(two_releases[0]), "SLIMLINE_EVENT_STORE": f"sqlite:///{tmp_path}/events.db",
            "BENTOML_HOME": str(tmp_path / "bentoml"), "BENTOML_DO_NOT_TRACK": "True", "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        environment |= {f"SLIMLINE_{name.upper()}": value for name, value in settings.items()}
        processes.append(Process(command, environment, tmp_path / f"log-{len(processes)}"))
        return processes[-1]

    yield start
    for each in processes:
        each.stop()


@KINDS
def test_it_answers_without_torch(
    run: Callable[..., Process], command: list[str], document: dict[str, Any], two_releases: tuple[Path, Path]
) -> None:
    server = run(command)
    answer = httpx.post(f"{server.url}/predict", json=document)
    assert (answer.status_code, answer.json()["revision"]) == (200, digest(two_releases[0]))
    mapped = {Path(each.path).name for each in server.worker.memory_maps()}
    assert any(name.startswith("onnxruntime_pybind11") for name in mapped)
    assert not [name for name in mapped if "torch" in name]
    assert len(server.log.read_text().splitlines()) < 12, "a line a request?"


@KINDS
def test_on_sigterm_it_finishes_and_keeps_every_event(
    run: Callable[..., Process], command: list[str], document: dict[str, Any], tmp_path: Path
) -> None:
    server = run(command, drain_seconds="4")
    ready = []
    with Load(server.url, document) as load:
        until(lambda: len(load.seen) > 50)
        server.worker.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        ready.append(httpx.get(f"{server.url}/readyz"))
        asked = len(load.seen)
        time.sleep(0.3)
        assert len(load.seen) > asked, "requests are answered while it drains"
    assert [(each.status_code, each.json()) for each in ready] == [(503, {"status": "draining"})]
    server.stop()
    assert {status for status, _ in load.seen} == {200}
    with EventStore.open(f"sqlite:///{tmp_path}/events.db") as events:
        assert events.counts()["predictions"] == len(load.seen)


@KINDS
def test_a_scan_grows_no_series(run: Callable[..., Process], command: list[str]) -> None:
    server = run(command)
    httpx.get(f"{server.url}/nope")
    httpx.post(f"{server.url}/nope")

    def names() -> set[str]:
        lines = server.metrics().splitlines()
        return {re.sub(r"\} .*", "", line) for line in lines if not line.startswith("#")}

    before = names()
    with httpx.Client(base_url=server.url) as client:
        for number in range(200):
            client.get(f"/{number}/admin.php")
            client.post(f"/v2/models/{number}/infer")
    assert {name for name in names() - before if 'status="4' not in name} == set()
    assert "admin.php" not in server.metrics()


def test_bentomls_timers_and_spans_do_not_pile_up(run: Callable[..., Process], document: dict[str, Any]) -> None:
    """BentoML 1.4.39 starts a timer of 60 s for each request and never cancels it; each holds 10 kB and more.

    So does this service, when its requests go through BentoML's middleware: 5,000 of them keep over 20 MB.
    """
    server = run(BENTO)
    worker = server.worker
    with httpx.Client(base_url=server.url) as client:
        for _ in range(1000):
            client.post("/predict", json=document)
        before = worker.memory_info().rss
        for _ in range(5000):
            client.post("/predict", json=document)
        assert worker.memory_info().rss - before < 4e6
        for _ in range(200):  # BentoML's own pages are served by its application, without the timers
            assert client.get("/schema.json").status_code == 200


def test_workers_share_their_metrics_and_a_killed_one_is_replaced(
    run: Callable[..., Process], document: dict[str, Any]
) -> None:
    server = run(BENTO, workers="2")

    def workers() -> list[psutil.Process]:
        return workers_of(server.process.pid)

    until(lambda: len(workers()) == 2)
    until(lambda: re.search(r"slimline_ready\{.*\} 2\.0", server.metrics()) is not None, 30)
    for _ in range(60):  # a connection each, so that both are asked
        assert httpx.post(f"{server.url}/predict", json=document).status_code == 200
    assert predictions(server.metrics()) == 60
    victim = workers()[0]
    victim.kill()
    seen = []
    deadline = time.monotonic() + 30
    while len(workers()) < 2 or victim in workers():
        assert time.monotonic() < deadline
        try:
            seen.append(httpx.post(f"{server.url}/predict", json=document).status_code)
        except httpx.TransportError:  # what the killed one was answering
            seen.append(0)
        time.sleep(0.01)
    assert seen.count(0) <= 2
    assert set(seen) <= {0, 200}
    until(lambda: re.search(r"slimline_ready\{.*\} 2\.0", server.metrics()) is not None, 30)
    assert predictions(server.metrics()) == 60 + seen.count(200), "what the killed one counted stays counted"


def predictions(text: str) -> int:
    return round(sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("slimline_predictions_")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"release": "/nowhere"}, "/nowhere: no release"),
        ({"max_row": "1"}, "SLIMLINE_MAX_ROW: no such setting"),
        ({"tokens": "predict short"}, "SLIMLINE_TOKENS, token 1"),
    ],
)
def test_a_start_that_fails_says_why_in_one_line(settings: dict[str, str], message: str) -> None:
    environment = os.environ | {f"SLIMLINE_{name.upper()}": value for name, value in settings.items()}
    done = subprocess.run(
        [*SERVE, "--port", str(free_port())], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
