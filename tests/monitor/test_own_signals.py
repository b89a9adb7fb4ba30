"""Latency, errors, traffic and coverage on what the store and the endpoint say."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from slimline import manifest
from slimline.endpoint.settings import Settings
from slimline.monitor import scraping, watched
from slimline.monitor.coverage import Coverage
from slimline.monitor.errors import Errors
from slimline.monitor.latency import latency
from slimline.monitor.scraping import Scraper
from slimline.monitor.signal import Labelled, Predicted
from slimline.monitor.standing import State
from slimline.monitor.traffic import Traffic
from slimline.monitor.watched import Watched
from slimline.params import Monitor
from slimline.task import Split
from tests.endpoint.conftest import Server


def of(**chosen: Any) -> Watched:
    return Watched("sha256:a", "main", shadow=False, params=Monitor.model_validate(chosen))


def predicted(time: Any, seconds: float = 0.001) -> Predicted:
    count = len(time)
    return Predicted(
        np.asarray(time, float), {"predict": np.full(count, seconds), "total": np.full(count, seconds * 2)},
        np.ones((count, 1), np.float32), np.zeros(count, np.int64), np.arange(count), {}, np.zeros(0, np.int64),
    )  # fmt: skip


def labelled(time: Any, delay: float) -> Labelled:
    count = len(time)
    nothing = np.zeros(count, np.int64)
    moments = np.asarray(time, float)
    return Labelled(
        moments + delay, moments, np.ones((count, 1), np.float32), nothing, nothing, nothing * 1.0, {},
        np.zeros(0, np.int64),
    )  # fmt: skip


def test_an_injected_delay_is_seen_within_two_minutes_at_one_request_a_second() -> None:
    signal = latency(of(latency_ms={"predict": 5.0, "total": 20.0}))
    assert signal is not None
    for second in range(300):
        signal.predicted(predicted([1e9 + second]))
        signal.tick(1e9 + second)
    assert [each.state for each in signal.standings()] == [State.OK] * 3
    delayed = range(300, 420)
    for second in delayed:
        signal.predicted(predicted([1e9 + second], 0.012))
        signal.tick(1e9 + second)
        if signal.standings()[0].state is State.REGRESSED:
            break
    found = {each.signal: each.state for each in signal.standings()}
    assert found == {
        "latency": State.REGRESSED, "latency/predict": State.REGRESSED, "latency/total": State.REGRESSED,
    }  # fmt: skip
    assert second - 300 < 120


def test_the_objective_comes_from_the_benchmark_where_none_is_set(watched_releases: tuple[Path, Path]) -> None:
    own = watched.read("sha256:a", "main", shadow=False, release=watched_releases[0], chosen=None)
    signal = latency(own)
    assert signal is not None
    assert signal.limits == {"predict": pytest.approx(2 * 0.1 / 1e3)}


def test_no_objective_no_signal() -> None:
    assert latency(of()) is None


def test_silence_is_seen_and_a_clock_that_jumps_is_none() -> None:
    signal = Traffic(of(idle_minutes=15))
    signal.predicted(predicted([1e9]))
    signal.tick(1e9)
    signal.tick(1e9 + 86_400)
    assert signal.standings()[0].state is State.OK
    for minute in range(1, 16):
        signal.tick(1e9 + 86_400 + minute * 60)
    assert signal.standings()[0].state is State.REGRESSED
    signal.predicted(predicted([1e9 + 90_000]))
    assert signal.standings()[0].state is State.OK


def test_too_few_labels_are_said_when_they_had_their_time() -> None:
    signal = Coverage(of(min_coverage=0.5, label_delay_hours=1))
    time = 1e9 + np.arange(2000.0)
    signal.predicted(predicted(time))
    signal.labelled(labelled(time[::4], 600.0))
    signal.tick(time[-1])
    assert signal.standings()[0].state is State.OK, "their time isn't over"
    signal.tick(time[-1] + 3900)
    (standing,) = signal.standings()
    assert standing.state is State.REGRESSED
    assert standing.value == pytest.approx(0.25, abs=0.01)
    samples = {(each.metric, *each.labels.values()): each.value for each in signal.samples()}
    assert samples["slimline_label_delay_seconds", "0.5"] == 600.0
    again = Coverage(of(min_coverage=0.5, label_delay_hours=1))
    again.restore(signal.dump())
    again.tick(time[-1] + 3900)
    assert again.standings() == signal.standings()
    signal.tick(time[-1] + 7300)
    assert signal.standings()[0].count == 0
    assert signal.dump()["slices"] == []


@pytest.mark.parametrize(("every", "state"), [(0, State.OK), (4, State.REGRESSED)], ids=["none ever came", "they stop"])
def test_labels_that_stop_coming_are_said_though_none_are_asked_for(every: int, state: State) -> None:
    signal = Coverage(of(label_delay_hours=1))
    for hour in range(4):
        time = 1e9 + hour * 3600 + np.arange(0, 3600, 2.0)
        signal.predicted(predicted(time))
        if every and hour < 2:
            signal.labelled(labelled(time[::every], 600.0))
        signal.tick(time[-1])
    signal.tick(1e9 + 5 * 3600)
    again = Coverage(of(label_delay_hours=1))
    again.restore(signal.dump())
    again.tick(1e9 + 5 * 3600)
    assert again.standings() == signal.standings()
    assert signal.standings()[0].state is state


def test_failures_are_counted_by_the_endpoint(two_releases: tuple[Path, Path], splits: dict[str, Split]) -> None:
    """A real endpoint: one request that is fine, one that is the caller's mistake."""
    server = Server(Settings(release=two_releases[0], event_store="", reload_seconds=0.0))
    rows = splits["validation"].inputs["image"][:1]
    scraper = Scraper(server.url)
    scraper.look()
    good = {"inputs": {"image": rows.tolist()}}
    assert httpx.post(f"{server.url}/predict", json=good).status_code == 200
    assert httpx.post(f"{server.url}/predict", json={"inputs": {"image": [1]}}).status_code >= 400
    scraper.look()
    scraper.close()
    server.stop()
    (counted,) = scraper.take()
    assert counted.own[0] == manifest.digest(two_releases[0])
    assert (counted.requests, counted.failed, counted.dropped) == (1, 0, 0)


def test_an_endpoint_that_is_away_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    scraper = Scraper("http://127.0.0.1:9")
    for _ in range(3):
        scraper.look()
    scraper.close()
    assert caplog.text.count("can't be read") == 1
    assert list(scraper.take()) == []


@pytest.mark.parametrize(
    "said",
    [
        b"no HTTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b'HTTP/1.1 200 OK\r\n\r\nslimline_events_dropped_total{revision="a"} 1\n',
        b'HTTP/1.1 200 OK\r\n\r\nslimline_events_dropped_total{revision="a",variant="b"} +Inf\n',
    ],
    ids=["no HTTP", "cut short", "no variant", "no count"],
)
def test_whatever_an_endpoint_says_it_is_looked_at_again(
    said: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread would be gone, and errors never seen again, without a word."""
    monkeypatch.setattr(scraping, "EVERY", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        scraper = Scraper(f"http://127.0.0.1:{listening.getsockname()[1]}").start()
        listening.settimeout(10.0)
        for _ in range(4):
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(said)
        scraper.close()
    assert caplog.text.count("can't be read") <= 1
    assert list(scraper.take()) == []


def test_failures_regress() -> None:
    signal = Errors(of(error_share=0.001))
    assert signal.standings() == []
    for look in range(60):
        signal.counted(1e9 + look * 5, 50, 5 if look > 30 else 0, 0)
        signal.tick(1e9 + look * 5)
    assert signal.standings()[0].state is State.REGRESSED
