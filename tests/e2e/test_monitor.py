"""``slimline monitor`` as a process: killed at any moment, it raises each alarm once and counts each event once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from slimline.events import EventStore
from slimline.manifest import digest
from slimline.monitor import alarm_log
from tests.e2e.servers import BIN, SERVE, Process
from tests.endpoint.conftest import until
from tests.monitor.conftest import Send, answered, send, url, watched_releases

__all__ = ["answered", "send", "url", "watched_releases"]


class Monitor:
    """The process on one store and state folder."""

    def __init__(self, store: str, release: Path, state: Path, *options: str) -> None:
        self.log = state.parent / f"log-{time.monotonic_ns()}"
        command = [
            str(BIN / "slimline"), "monitor", "--store", store, "--release", str(release), "--state", str(state),
            "--undo", str(state / "undo"), "--port", "0", "--interval", "0.05", *options,
        ]  # fmt: skip
        started = time.monotonic()
        with self.log.open("w") as out:
            environment = {key: value for key, value in os.environ.items() if not key.startswith("SLIMLINE_")}
            self.process = subprocess.Popen(command, stderr=out, stdout=out, env=environment)
        until(lambda: "metrics at" in self.log.read_text() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.log.read_text()
        self.url = re.search(r"http://[\d.:]+", self.log.read_text())[0]  # type: ignore[index]
        self.seconds = time.monotonic() - started

    def value(self, name: str) -> float:
        found = re.search(rf"^{name}(?:{{.*}})? (\S+)$", httpx.get(f"{self.url}/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)


@pytest.fixture
def start(url: str, watched_releases: tuple[Path, Path], tmp_path: Path) -> Iterator[Callable[..., Monitor]]:
    started: list[Monitor] = []

    def run(*options: str) -> Monitor:
        started.append(Monitor(url, watched_releases[0], tmp_path / "state", *options))
        return started[-1]

    yield run
    for each in started:
        if each.process.poll() is None:
            each.stop(signal.SIGKILL)


def test_killed_again_and_again_it_counts_once_and_alarms_once(
    start: Callable[..., Monitor], url: str, send: Send, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    written = 0
    with EventStore.open(url) as store:
        for number in range(6):
            monitor = start()
            for part in range(4):
                send(store, 100, wrong=0.5 if number >= 2 else 0.0, seed=100 * number + part, start=time.time())
                written += 200
                time.sleep(rng.random() * 0.3)
            monitor.stop(signal.SIGKILL)
    monitor = start()
    assert monitor.seconds < 10
    until(lambda: monitor.value("slimline_monitor_events_total") >= written)
    assert monitor.value("slimline_monitor_events_total") == written
    assert monitor.value("slimline_watched_rows_total") == monitor.value("slimline_watched_labels_total") == written / 2
    raised = [each for each in alarm_log.entries(tmp_path / "state") if each["event"] == "raised"]
    signals = sorted(each["standing"]["signal"] for each in raised)
    assert "accuracy" in signals
    assert signals == sorted(set(signals)), "each alarm once"
    assert monitor.stop() == 0
    again = start()
    until(lambda: again.value("slimline_monitor_last_poll_seconds") > 0)
    assert again.value("slimline_monitor_events_total") == written


def test_two_monitors_do_not_share_a_state_folder(
    start: Callable[..., Monitor], url: str, watched_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    start()
    command = [BIN / "slimline", "monitor", "--store", url, "--state", tmp_path / "state", "--port", "0"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "another monitor" in second.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--store", "sqlite:///nowhere.db"], "there is none"),
        (["--release", "nowhere"], "nowhere"),
        (["--deployment", "nowhere"], "no deployment"),
        (["--params", "nowhere.yaml"], "nowhere.yaml: not found"),
    ],
)
def test_a_mistake_is_one_line(url: str, tmp_path: Path, options: list[str], said: str) -> None:
    command = [BIN / "slimline", "monitor", *(["--store", url] if "--store" not in options else []), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr


def test_it_runs_without_the_trainer(start: Callable[..., Monitor]) -> None:
    monitor = start()
    until(lambda: monitor.value("slimline_monitor_last_poll_seconds") > 0)
    maps = Path(f"/proc/{monitor.process.pid}/maps").read_text()
    assert "libtorch" not in maps


def test_the_webhook_needs_its_token(start: Callable[..., Monitor], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    monitor = start("--token-file", str(token))
    body: dict[str, Any] = {"version": "4", "alerts": []}
    assert httpx.post(f"{monitor.url}/undo", json=body).status_code == 401
    answer = httpx.post(f"{monitor.url}/undo", json=body, headers={"Authorization": "Bearer secret"})
    assert (answer.status_code, answer.json()) == (200, {"actions": []})


def test_requests_that_an_endpoint_fails_become_an_alarm(
    start: Callable[..., Monitor], run: Callable[..., Process], watched_releases: tuple[Path, Path], url: str,
    document: dict[str, Any], tmp_path: Path,
) -> None:  # fmt: skip
    """Every other request is larger than the room for bodies and shed with 503; no event says so, the metrics do."""
    server = run(SERVE, release=str(watched_releases[0]), event_store=url, max_held_bytes="20000")
    large = {"inputs": {"image": document["inputs"]["image"] * 40}}
    start("--endpoint", server.url)
    seen: Counter[int] = Counter()

    def raised() -> list[dict[str, Any]]:
        for body in (document, large):
            seen[httpx.post(f"{server.url}/predict", json=body).status_code] += 1
        return [each["standing"] for each in alarm_log.entries(tmp_path / "state") if each["event"] == "raised"]

    until(lambda: "errors" in {each["signal"] for each in raised()}, 120)
    (errors,) = [each for each in raised() if each["signal"] == "errors"]
    assert errors["revision"] == digest(watched_releases[0])
    assert errors["value"] == pytest.approx(0.5, abs=0.05)
    assert set(seen) == {200, 503}


def test_its_memory_does_not_grow(start: Callable[..., Monitor], url: str, send: Send) -> None:
    """At most 6 MB a million events once it has settled, by the median of all slopes between two moments (Sen 1968).

    An allocator takes memory in steps of some MB, so the whole may grow by two of them, and half a million events are
    watched: over fewer, one step in the middle is all that is seen.
    """
    monitor = start()
    written, used = 0, []
    with EventStore.open(url) as store:
        for number in range(30):
            send(store, 10_000, seed=number, start=time.time())
            written += 20_000
            until(lambda: monitor.value("slimline_monitor_events_total") == written, 60)  # noqa: B023
            used.append(psutil.Process(monitor.process.pid).memory_info().rss / 1e6)
    settled = list(enumerate(used))[4:]
    slopes = [(b - a) / (later - at) / 0.02 for (at, a), (later, b) in combinations(settled, 2)]
    slope = np.median(slopes)
    assert slope < 6, f"{slope:.1f} MB a million events; after each 20,000: {used}"
    assert used[-1] - used[4] < 8, used
