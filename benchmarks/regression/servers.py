"""The real processes of the loop on free loopback ports: endpoint, monitor, Prometheus, Alertmanager, a pager."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from slimline.deployment import Deployment
from slimline.errors import SlimlineError
from slimline.events import EventStore

HERE = Path(__file__).resolve().parent
PACKAGES = {"prometheus": "prometheus", "prometheus-alertmanager": "prometheus-alertmanager"}
SCRAPE = "1s"
LOOK = 0.25


class Loop:
    """A deployment folder with ``releases``, of which the last one is current, served, watched and scraped.

    ``sample`` is the share of requests that the whole chain answers; ``slowed`` serves with a runtime that waits as
    long as ``delay`` says. Use it in a ``with``.
    """

    def __init__(self, folder: Path, releases: Sequence[Path], *, sample: float, slowed: bool = False) -> None:
        for program, package in PACKAGES.items():
            if shutil.which(program) is None:
                raise SlimlineError(f"{program}: not installed; apt-get install {package}")
        self.folder = folder
        self.deployment = Deployment(folder / "deployed")
        self.store = f"sqlite:///{folder / 'events.db'}"
        self.state = folder / "monitor"
        self.delay = folder / "delay"
        self.ports = {name: free_port() for name in ("endpoint", "monitor", "prometheus", "alertmanager")}
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()}
        self.pager = Pager()
        self._releases, self._sample, self._slowed = releases, sample, slowed
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            for each in self._releases:
                self.deployment.activate(self.deployment.install(each))
            EventStore.open(self.store).close()
            self._endpoint()
            self._monitor()
            self._configure()
            self._prometheus()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        self.pager.close()

    @property
    def endpoint(self) -> int:
        """The id of the process that answers."""
        return self._processes["endpoint"].pid

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that Prometheus fires now, with labels and annotations."""
        found = httpx.get(f"{self.urls['prometheus']}/api/v1/alerts", timeout=5).json()["data"]["alerts"]
        return [each for each in found if each["state"] == "firing"]

    def _endpoint(self) -> None:
        settings = {
            "SLIMLINE_EVENT_STORE": self.store, "SLIMLINE_SAMPLE": str(self._sample), "SLIMLINE_INPUTS": "sampled",
            "SLIMLINE_RELOAD_SECONDS": "1", "PYTHONPATH": str(HERE), "DEMO_DELAY": str(self.delay),
        }  # fmt: skip
        if self._slowed:
            settings["SLIMLINE_RUNTIME"] = "slowed:Slowed"
        command = ["serve", str(self.deployment.path), "--port", str(self.ports["endpoint"])]
        self._start("endpoint", _slimline(*command), settings, "/readyz")

    def _monitor(self) -> None:
        token = self.folder / "token"
        token.write_text(secrets.token_urlsafe())
        command = _slimline(
            "monitor", "--store", self.store, "--deployment", str(self.deployment.path), "--state", str(self.state),
            "--port", str(self.ports["monitor"]), "--interval", "0.5", "--undo", str(self.folder / "undo"),
            "--token-file", str(token), "--endpoint", self.urls["endpoint"],
        )  # fmt: skip
        self._start("monitor", command, {}, "/metrics")

    def _configure(self) -> None:
        """Take the release's own files, with this loop's addresses in them."""
        made, own = self._releases[-1] / "monitoring", self.folder / "monitoring"
        shutil.copytree(made, own)
        shutil.copy(self.folder / "token", own / "undo.token")
        prometheus = yaml.safe_load((made / "prometheus.yml").read_text(encoding="utf-8"))
        targets = {"slimline": "endpoint", "slimline-monitor": "monitor"}
        prometheus["global"] = {"scrape_interval": SCRAPE, "evaluation_interval": SCRAPE}
        prometheus["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [self._address("alertmanager")]}]
        for job in prometheus["scrape_configs"]:
            if job["job_name"] in targets:
                job["static_configs"] = [{"targets": [self._address(targets[job["job_name"]])]}]
        alertmanager = yaml.safe_load((made / "alertmanager.yml").read_text(encoding="utf-8"))
        alertmanager["route"]["group_wait"] = "1s"
        for route in alertmanager["route"]["routes"]:
            route["group_wait"] = "1s"
        for receiver in alertmanager["receivers"]:
            if receiver["name"] == "undo":
                receiver["webhook_configs"][0]["url"] = f"{self.urls['monitor']}/undo"
            else:
                receiver["webhook_configs"] = [{"url": f"{self.pager.url}/{receiver['name']}"}]
        for name, document in (("prometheus.yml", prometheus), ("alertmanager.yml", alertmanager)):
            (own / name).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def _prometheus(self) -> None:
        own = self.folder / "monitoring"
        self._start(
            "alertmanager",
            [
                "prometheus-alertmanager", f"--config.file={own / 'alertmanager.yml'}",
                f"--storage.path={self.folder / 'alertmanager'}", "--cluster.listen-address=",
                f"--web.listen-address={self._address('alertmanager')}",
            ],
            {}, "/-/ready",
        )  # fmt: skip
        self._start(
            "prometheus",
            [
                "prometheus", f"--config.file={own / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'prometheus'}",
                f"--web.listen-address={self._address('prometheus')}",
            ],
            {}, "/-/ready",
        )  # fmt: skip

    def _address(self, name: str) -> str:
        return f"127.0.0.1:{self.ports[name]}"

    def _start(self, name: str, command: list[str], settings: Mapping[str, str], ready: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SLIMLINE_")}
        log = self.folder / f"{name}.log"
        with log.open("wb") as out:
            self._processes[name] = subprocess.Popen(
                command, env=environment | {"OMP_NUM_THREADS": "1"} | dict(settings), stdout=out, stderr=out,
                cwd=self.folder,
            )  # fmt: skip

        def is_ready() -> bool:
            if self._processes[name].poll() is not None:
                raise SlimlineError(f"{name} ended: {log.read_text(errors='replace')[-2000:]}")
            try:
                return httpx.get(f"{self.urls[name]}{ready}", timeout=2).status_code == 200
            except httpx.HTTPError:
                return False

        until(is_ready, 60, f"{name} isn't ready: {log}")


class Pager:
    """What people are told: every notification that Alertmanager sends to ``pages`` or ``tickets``."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        told = self.told

        class Receive(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.append({"time": time.time(), "receiver": self.path[1:], "alerts": document["alerts"]})
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Receive)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def free_port() -> int:
    """Return a port that nobody has, below those that the system gives to connections."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for ``true()``; after ``seconds`` raise SlimlineError(``what``)."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise SlimlineError(what)
        time.sleep(LOOK)


def _slimline(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "slimline", *arguments]
