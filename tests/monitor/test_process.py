"""The loop on real stores and releases: alarms once, checkpoints, faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from slimline import manifest
from slimline.events import EventStore, Position
from slimline.monitor import alarm_log, checkpoint
from slimline.monitor.follower import Follower
from slimline.monitor.metrics import Shown
from slimline.monitor.process import Clock, Process
from slimline.monitor.releases import Releases
from slimline.monitor.standing import Standing, State
from tests.monitor.conftest import Send

Make = Callable[..., Process]


@pytest.fixture
def make(url: str, watched_releases: tuple[Path, Path], tmp_path: Path) -> Make:
    """Return a monitor of the store, on the state folder of the one before."""
    folder = tmp_path / "state"
    folder.mkdir()

    def process(*releases: Path) -> Process:
        follower = Follower(EventStore.open(url), Releases(None, releases or watched_releases[:1]), folder, None)
        follower.check()
        return Process(follower, folder)

    return process


def drain(process: Process) -> None:
    while process.poll():
        pass


def raised(folder: Path) -> list[str]:
    return [each["standing"]["signal"] for each in alarm_log.entries(folder) if each["event"] == "raised"]


def shown(process: Process) -> dict[str, float]:
    return {
        f"{sample.name}{json.dumps(sorted(sample.labels.items()))}": sample.value
        for family in parse(process.exporter.render().decode())
        for sample in family.samples
    }


def test_good_traffic_raises_nothing_and_is_shown(
    make: Make, url: str, send: Send, watched_releases: tuple[Path, Path]
) -> None:
    with EventStore.open(url) as store:
        send(store, 300)
    process = make()
    drain(process)
    assert process.follower.events == 600
    own = {"revision": manifest.digest(watched_releases[0]), "variant": "main"}
    values = shown(process)

    def value(name: str, **labels: str) -> float:
        return values[f"{name}{json.dumps(sorted((labels | own).items()))}"]

    assert value("slimline_regression_state", signal="accuracy") == 0
    assert value("slimline_watched_rows_total") == value("slimline_watched_labels_total") == 300
    assert 0.7 < value("slimline_accuracy_ratio", bound="value") < 1
    assert process.alarms.open == {}


def test_an_alarm_is_raised_once_over_restarts(make: Make, url: str, send: Send, tmp_path: Path) -> None:
    """The checkpoint is lost after the alarm, so everything is read and decided again."""
    with EventStore.open(url) as store:
        send(store, 600, wrong=0.5)
    process = make()
    drain(process)
    assert sorted(raised(tmp_path / "state")) == ["accuracy", "agreement"]
    for name in (checkpoint.FILE, checkpoint.BEFORE):
        (tmp_path / "state" / name).unlink(missing_ok=True)
    again = make()
    assert again.follower.position == Position()
    drain(again)
    assert again.follower.events == 1200
    assert sorted(raised(tmp_path / "state")) == ["accuracy", "agreement"]


def test_it_goes_on_where_it_was(make: Make, url: str, send: Send) -> None:
    with EventStore.open(url) as store:
        send(store, 100)
        first = make()
        drain(first)
        first.follower.save()
        send(store, 50, seed=1, start=1e9 + 100)
        second = make()
        drain(second)
        drain(first)
    assert second.follower.events == first.follower.events == 300
    (one,), (two,) = first.follower.watches.values(), second.follower.watches.values()
    assert (one.rows, one.labels, one.last) == (two.rows, two.labels, two.last)
    assert one.dump()["signals"]["accuracy"] == two.dump()["signals"]["accuracy"]


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_taken(
    make: Make, url: str, send: Send, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with EventStore.open(url) as store:
        send(store, 100)
    process = make()
    process.follower.save()
    process.follower.step(1e9)
    process.follower.save()
    path = tmp_path / "state" / checkpoint.FILE
    path.write_bytes(path.read_bytes()[:-20])
    again = make()
    assert "damaged" in caplog.text
    assert again.follower.position == Position()
    drain(again)
    assert again.follower.events == 200


def test_a_store_that_was_replaced_is_read_from_its_start(
    make: Make, url: str, send: Send, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with EventStore.open(url) as store:
        send(store, 100)
    process = make()
    drain(process)
    for path in tmp_path.glob("events.db*"):
        path.unlink()
    with EventStore.open(url) as store:
        send(store, 40, start=2e9)
    assert not process.poll()
    assert shown(process)["slimline_monitor_store_up[]"] == 0
    drain(process)
    assert process.follower.events == 280
    assert "was replaced" in caplog.text
    assert shown(process)["slimline_monitor_store_up[]"] == 1


def test_a_revision_without_its_release_is_said_once(
    make: Make, url: str, send: Send, watched_releases: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    process = make(watched_releases[1])
    with EventStore.open(url) as store:
        for number in range(3):
            send(store, 10, start=1e9 + number)
            drain(process)
    assert caplog.text.count("no such release") == 1
    (watched,) = process.standings
    assert [each["signal"] for each in watched["standings"]] == ["traffic", "coverage"]


def test_a_revision_that_was_replaced_shows_no_more_and_its_alarm_is_over(
    make: Make, url: str, send: Send, watched_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    bad, good = (manifest.digest(each) for each in watched_releases)
    process = make(*watched_releases)
    with EventStore.open(url) as store:
        send(store, 600, wrong=0.5)
        drain(process)
        assert {key[:2] for key in process.alarms.open} == {("accuracy", bad), ("agreement", bad)}
        send(store, 50, start=1e9 + 200, revision=good)
        drain(process)
    assert process.alarms.open == {}
    assert [each["event"] for each in alarm_log.entries(tmp_path / "state")] == ["raised"] * 2 + ["resolved"] * 2
    assert bad not in process.exporter.render().decode()
    assert good in process.exporter.render().decode()


def test_a_signal_that_fails_takes_nothing_with_it(
    make: Make, url: str, send: Send, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slimline.monitor.accuracy import Accuracy

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Accuracy, "labelled", fail)
    with EventStore.open(url) as store:
        send(store, 30)
    process = make()
    drain(process)
    assert process.follower.events == 60
    signals = {each["signal"] for each in process.standings[0]["standings"]}
    assert "accuracy" not in signals
    assert "traffic" in signals
    assert caplog.text.count("is left out") == 1
    (failed,) = (key for key in shown(process) if key.startswith("slimline_signal_failed"))
    assert '["signal", "accuracy"]' in failed


def test_an_alarm_stays_open_while_its_signal_cannot_say_that_it_is_over(
    make: Make, url: str, send: Send, watched_releases: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from slimline.monitor.accuracy import Accuracy

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    process = make()
    with EventStore.open(url) as store:
        send(store, 600, wrong=0.5)
    drain(process)
    before = dict(process.alarms.open)
    assert {key[0] for key in before} == {"accuracy", "agreement"}
    process.follower.save()
    with monkeypatch.context() as broken:
        broken.setattr(Accuracy, "standings", fail)
        drain(process)
        drain(process)
    assert process.follower.active()[0].failed == ["accuracy"]
    assert process.alarms.open == before
    away = make(watched_releases[1])  # a release that can't be found when the monitor starts again
    drain(away)
    assert away.alarms.open == before
    assert {each["event"] for each in alarm_log.entries(tmp_path / "state")} == {"raised"}


def test_an_alarm_stays_open_while_its_release_has_yet_to_be_read_of(
    make: Make, url: str, send: Send, watched_releases: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The checkpoint is lost, and the store begins long before."""
    with EventStore.open(url) as store:
        send(store, 60, revision=manifest.digest(watched_releases[1]))
        send(store, 600, wrong=0.5, start=1e9 + 1000)
        drain(make(*watched_releases))
    (tmp_path / "state" / checkpoint.FILE).unlink()
    monkeypatch.setattr("slimline.monitor.follower.PAGE", 50)
    process = make(*watched_releases)
    assert process.poll()
    assert {key[0] for key in process.alarms.open} == {"accuracy", "agreement"}
    drain(process)
    assert [each["event"] for each in alarm_log.entries(tmp_path / "state")] == ["raised"] * 2


def test_an_alarm_of_a_signal_that_is_watched_no_more_is_over(
    make: Make, url: str, send: Send, watched_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    own = manifest.digest(watched_releases[0]), "main"
    process = make()
    process.alarms.settle({("gone", *own): Standing("gone", *own, State.REGRESSED, "bad", 1e9, 1)}, 1e9, str)
    with EventStore.open(url) as store:
        send(store, 30)
    drain(process)
    assert alarm_log.entries(tmp_path / "state")[-1]["why"] == "its signal isn't watched any more"


def test_a_state_folder_that_cannot_be_written_delays_alarms_and_loses_none(
    make: Make, url: str, send: Send, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = make()
    process.poll()
    state, aside = tmp_path / "state", tmp_path / "aside"
    state.rename(aside)
    with EventStore.open(url) as store:
        send(store, 600, wrong=0.5)
    for _ in range(3):
        process.poll()
    assert caplog.text.count("alarms and the checkpoint wait for it") == 1
    assert shown(process)["slimline_monitor_state_up[]"] == 0
    assert process.alarms.open == {}
    aside.rename(state)
    process.poll()
    assert sorted(raised(state)) == ["accuracy", "agreement"]


def test_the_state_folder_counts_as_lost_until_something_was_written(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def up(seconds_between_checkpoints: float) -> Any:
        monkeypatch.setattr("slimline.monitor.process.CHECKPOINT_SECONDS", seconds_between_checkpoints)
        process.poll()
        process.poll()  # the next step shows what this one found
        return shown(process)["slimline_monitor_state_up[]"]

    process = make()
    assert up(0.0) == 1
    state, aside = tmp_path / "state", tmp_path / "aside"
    state.rename(aside)
    assert up(0.0) == 0
    assert up(1e9) == 0  # no checkpoint is due, so nothing shows that it is back
    aside.rename(state)
    assert up(0.0) == 1


def test_a_clock_that_jumps_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    wall, ticks = [1e9], [5.0]
    clock = Clock(lambda: wall[0], lambda: ticks[0])
    clock.now()
    wall[0] += 86_400
    assert [clock.now(), clock.now()] == [1e9 + 86_400] * 2
    wall[0], ticks[0] = wall[0] + 5, ticks[0] + 5
    clock.now()
    assert caplog.text.count("the clock jumped by +86400 s") == 1


def test_every_metric_that_is_shown_is_declared(make: Make, url: str, send: Send) -> None:
    process = make()
    with pytest.raises(KeyError):
        process.exporter.put([Shown("slimline_nothing", 1.0, {})])
    with pytest.raises(KeyError, match="labels"):
        process.exporter.put([Shown("slimline_probe_up", 1.0, {})])
