"""What benchmarks/serving makes of runs: ratios, goals, the slope of memory; an open loop must not hide a stall."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "serving"
STALL_S = 0.5


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its scripts find each other as they do when one is started; others' of the same name are back at the end."""
    names = {path.stem for path in FOLDER.glob("*.py")}
    before = {name: sys.modules.pop(name) for name in names & sys.modules.keys()}
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(before)


def run(p50: float, throughput: float, ready: float = 1.0, *, torch: bool = False) -> dict[str, Any]:
    row = {"p50_ms": p50, "p95_ms": 2 * p50, "p99_ms": 4 * p50, "throughput": throughput, "errors": 0.0}
    return {"rows": {"1": row, "32": row, "load": row}, "ready_s": ready, "torch": torch, "waited": 0.0}


def test_goals_are_ratios_paired_within_a_round() -> None:
    import summary

    ours = [run(1.0, 900.0), run(2.0, 450.0, ready=2.9), run(4.0, 225.0)]  # a machine that gets slower and slower
    plain = [run(4.0, 300.0), run(8.0, 150.0), run(16.0, 75.0)]
    found = summary.goals({"small": {"slimline in bentoml": ours, "bentoml": plain}})
    own = {(goal["what"], goal.get("of")): goal for goal in found if goal["variant"] == "slimline in bentoml"}
    assert own["p50_ms", "bentoml"]["ratio"] == pytest.approx([0.25] * 3)
    assert own["p50_ms", "bentoml"]["met"] is True
    assert own["throughput", "bentoml"]["ratio"] == pytest.approx([3.0] * 3)
    assert own["p99_ms", "its p50"]["ratio"] == pytest.approx([4.0] * 3)
    assert own["p99_ms", "its p50"]["met"] is False
    assert own["throughput", "bentoml, batchable"]["met"] is None  # nobody ran it
    assert own["ready_s", None]["ready_s"] == [1.0, 1.0, 2.9]
    assert own["ready_s", None]["met"] is True


@pytest.mark.parametrize("start", [{"ready": 3.1}, {"torch": True}], ids=["late", "with torch"])
def test_one_bad_start_misses_the_goal(start: dict[str, Any]) -> None:
    import summary

    runs = {"slimline": [run(1.0, 1.0), run(1.0, 1.0, **start)]}
    (goal,) = (
        each for each in summary.goals({"small": runs}) if (each["variant"], each["what"]) == ("slimline", "ready_s")
    )
    assert goal["met"] is False


def test_what_a_request_adds_is_counted_against_the_runtime() -> None:
    import summary

    found = summary.table({"onnxruntime": [run(0.1, 10_000.0)], "slimline": [run(0.3, 4_000.0)]})
    assert found["slimline"]["added_us"] == pytest.approx({"1": 200.0, "32": 150.0})


def test_memory_that_grows_has_its_slope_within_the_interval() -> None:
    import soak

    sent = np.linspace(0, 1e6, 300)
    noise = np.random.default_rng(0).normal(0, 0.5, 300)
    low, slope, high = soak.slope(sent, 100 + 2e-5 * sent + noise)  # 2 MiB a 100,000
    assert low <= 2.0 <= high
    assert slope == pytest.approx(2.0, abs=0.05)
    low, _, high = soak.slope(sent, 100 + noise)
    assert low <= 0.0 <= high


class Stalls(BaseHTTPRequestHandler):
    """Answers at once but for one stall, in which every connection waits."""

    protocol_version = "HTTP/1.1"
    until = 0.0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(max(0.0, Stalls.until - time.monotonic()))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def stalling() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stalls)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_stall_counts_for_every_request_that_should_have_left(stalling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import closed_loop
    import open_loop

    monkeypatch.setattr(open_loop, "CONNECTIONS", 4)
    client = open_loop.OpenLoop(closed_loop.Request(stalling, b"{}", {}), 200.0)
    timer = threading.Timer(0.5, lambda: setattr(Stalls, "until", time.monotonic() + STALL_S))
    timer.start()
    client.run(2.0)
    timer.join()
    late = sum(each > 100 for each in client.milliseconds)
    assert client.errors == 0
    assert len(client.milliseconds) == client.sent
    assert late > 0.5 * STALL_S * 200  # four connections alone would show four


def test_a_warm_up_is_sent_and_not_timed(stalling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import closed_loop
    import open_loop

    monkeypatch.setattr(open_loop, "CONNECTIONS", 4)
    Stalls.until = time.monotonic() + STALL_S
    client = open_loop.OpenLoop(closed_loop.Request(stalling, b"{}", {}), 200.0)
    client.run(0.5, warm_up=1.0)
    assert max(client.milliseconds) < 1e3 * STALL_S / 2  # the stall is over by then
    assert 60 < len(client.milliseconds) < client.sent - 120
