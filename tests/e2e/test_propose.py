"""Under ``propose``: the release's own files in a real Prometheus and Alertmanager, a real monitor, nothing moved."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from slimline import manifest
from slimline.deployment import Deployment
from slimline.events import EventStore
from slimline.monitor.journal import Journal
from tests.e2e.test_monitor import Monitor, start
from tests.endpoint.conftest import until
from tests.monitor.conftest import Send, answered, send, url, watched_releases
from tests.monitor.test_responding import deployed
from tests.ports import free_ports

__all__ = ["answered", "send", "start", "url", "watched_releases"]

PROGRAMS = {"prometheus": "prometheus", "prometheus-alertmanager": "prometheus-alertmanager"}
TOKEN = "undo-token-0000000001"  # noqa: S105


class Servers:
    """Prometheus and Alertmanager on ``release``'s own files, with other addresses, and ``told``: what people get."""

    def __init__(self, release: Path, monitor: Monitor, folder: Path) -> None:
        self.told: list[dict[str, Any]] = []
        self._pager = ThreadingHTTPServer(("127.0.0.1", 0), pager(self.told))
        threading.Thread(target=self._pager.serve_forever, daemon=True).start()
        shutil.copytree(release / "monitoring", folder)
        (folder / "undo.token").write_text(TOKEN)
        prometheus = yaml.safe_load((folder / "prometheus.yml").read_text())
        alertmanager = yaml.safe_load((folder / "alertmanager.yml").read_text())
        own, self.url = f"127.0.0.1:{free_ports()}", f"http://127.0.0.1:{free_ports()}"
        prometheus["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [self.url.removeprefix("http://")]
        for job in prometheus["scrape_configs"]:
            if job["job_name"] == "slimline-monitor":
                job["static_configs"][0]["targets"] = [monitor.url.removeprefix("http://")]
        for receiver in alertmanager["receivers"]:
            if receiver["name"] == "undo":
                receiver["webhook_configs"][0]["url"] = f"{monitor.url}/undo"
            else:
                receiver["webhook_configs"] = [{"url": f"http://127.0.0.1:{self._pager.server_port}"}]
        for name, document in (("prometheus", prometheus), ("alertmanager", alertmanager)):
            (folder / f"{name}.yml").write_text(yaml.safe_dump(document))
        data = [f"--storage.path={folder / 'alerts'}", "--cluster.listen-address="]
        addresses = f"--web.listen-address={self.url.removeprefix('http://')}", f"--web.listen-address={own}"
        commands = (
            ["prometheus-alertmanager", f"--config.file={folder / 'alertmanager.yml'}", *data, addresses[0]],
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"],
        )
        with (folder / "log").open("w") as log:
            self._processes = [
                subprocess.Popen(command, stdout=log, stderr=log)
                for command in (commands[0], [*commands[1], addresses[1]])
            ]
        try:
            until(lambda: ready(self.url) and ready(f"http://{own}"), 60)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for each in self._processes:
            each.terminate()
        for each in self._processes:
            each.wait(15)
        self._pager.shutdown()
        self._pager.server_close()

    def named(self, alert: str) -> list[dict[str, Any]]:
        return [each for each in self.told if each["labels"]["alertname"] == alert]


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


def pager(told: list[dict[str, Any]]) -> type[BaseHTTPRequestHandler]:
    class Receive(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    return Receive


@pytest.fixture
def deployment(watched_releases: tuple[Path, Path], tmp_path: Path) -> Deployment:
    """The first release is current, after the second."""
    return deployed(tmp_path / "deploy", watched_releases)


@pytest.fixture
def monitor(start: Callable[..., Monitor], deployment: Deployment, tmp_path: Path) -> Monitor:
    (tmp_path / "token").write_text(TOKEN)
    return start("--deployment", str(deployment.path), "--token-file", str(tmp_path / "token"))


@pytest.fixture
def servers(watched_releases: tuple[Path, Path], monitor: Monitor, tmp_path: Path) -> Iterator[Servers]:
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            pytest.skip(f"{program} isn't installed: apt-get install {package}")
    made = Servers(watched_releases[0], monitor, tmp_path / "monitoring")
    yield made
    made.stop()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state" / "undo")


def test_an_alarm_is_proposed_written_down_shown_and_told(
    servers: Servers, monitor: Monitor, deployment: Deployment, journal: Journal, url: str, send: Send
) -> None:
    bad, good = str(deployment.revision()), deployment.earlier()[0]
    with EventStore.open(url) as store:
        send(store, 600, wrong=0.5, start=time.time() - 6)
    until(lambda: servers.named("SlimlineAccuracyRegressed") and servers.named("SlimlineBlamed"), 60)
    proposed = {each["evidence"]["standing"]["signal"]: each for each in journal.entries()}
    assert {"accuracy", "agreement"} == proposed.keys()
    for each in proposed.values():
        assert (each["outcome"], each["verdict"]) == ("proposed", "distill")
        assert (each["move"]["kind"], each["move"]["revision"], each["move"]["to"]) == ("rollback", bad, good)
    blamed = servers.named("SlimlineBlamed")[0]["labels"]
    assert (blamed["verdict"], blamed["stage"], blamed["revision"]) == ("stage", "distill", bad)
    shown = httpx.get(f"{monitor.url}/metrics").text
    assert f'slimline_blame_info{{revision="{bad}",signal="accuracy",stage="distill",variant="main",' in shown
    assert f'slimline_alarm_open{{revision="{bad}",signal="accuracy",variant="main"}} 1.0' in shown
    assert deployment.revision() == bad, "a person decides"
    assert [each["action"] for each in deployment.history()] == ["activate", "activate"]


def test_alertmanager_has_the_token_that_the_webhook_asks_for(
    servers: Servers, deployment: Deployment, journal: Journal, tmp_path: Path
) -> None:
    """An alert that the monitor knows nothing of comes by Alertmanager alone, with the file as it was generated."""
    made = yaml.safe_load((tmp_path / "monitoring" / "alertmanager.yml").read_text())
    (undo,) = [each["webhook_configs"][0] for each in made["receivers"] if each["name"] == "undo"]
    assert undo["http_config"] == {"authorization": {"credentials_file": "undo.token"}}
    revision = str(deployment.revision())
    labels = {
        "alertname": "SlimlineErrorsRegressed", "severity": "page", "signal": "errors", "revision": revision,
        "variant": "main",
    }  # fmt: skip
    alert = {"labels": labels, "annotations": {"summary": "too many requests are answered with 5xx"}}
    assert httpx.post(f"{servers.url}/api/v2/alerts", json=[alert]).status_code == 200
    until(lambda: bool(journal.entries()), 60)
    (entry,) = journal.entries()
    assert (entry["by"], entry["outcome"]) == ("alertmanager", "proposed")
    assert entry["move"]["to"] == deployment.earlier()[0]
    assert manifest.digest(deployment.directory(revision)) == deployment.revision() == revision
