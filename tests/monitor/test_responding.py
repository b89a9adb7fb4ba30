"""An alarm is blamed and undone beside the loop, once, on a real deployment."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slimline import manifest
from slimline.deployment import Deployment
from slimline.events import EventStore
from slimline.monitor import alarm_log, responding
from slimline.monitor.blame import Blame, on_alarm
from slimline.monitor.follower import Follower
from slimline.monitor.process import Process
from slimline.monitor.releases import Releases
from slimline.monitor.responding import Responder
from slimline.params import Monitor
from tests.endpoint.conftest import until
from tests.monitor.conftest import Send


def deployed(folder: Path, releases: tuple[Path, Path]) -> Deployment:
    """A deployment that went from the second of ``releases`` to the first."""
    deployment = Deployment(folder)
    for release in reversed(releases):
        deployment.activate(deployment.install(release))
    return deployment


def process(url: str, deployment: Deployment, folder: Path, policy: str) -> Process:
    folder.mkdir(exist_ok=True)
    chosen = Monitor.model_validate({"undo": {"policy": policy}})
    store, releases = EventStore.open(url), Releases(deployment.path)
    responder = Responder(store, releases, folder / "undo", chosen)
    return Process(Follower(store, releases, folder, chosen), folder, responder=responder)


def answers(folder: Path) -> list[dict[str, Any]]:
    return [each for each in alarm_log.entries(folder) if each["event"] == "answered"]


def test_a_bad_stage_is_blamed_and_its_release_taken_back(
    url: str, send: Send, watched_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    deployment = deployed(tmp_path / "deploy", watched_releases)
    bad, good = (manifest.digest(each) for each in watched_releases)
    assert deployment.revision() == bad
    state = tmp_path / "state"
    running = process(url, deployment, state, "act")
    with EventStore.open(url) as store:
        send(store, 600, wrong=0.5, start=time.time() - 6)
    assert not running.poll()
    until(lambda: not running.poll() and len(answers(state)) == 2, 60)
    found = answers(state)
    assert [(each["blame"]["kind"], each["blame"]["stage"]) for each in found] == [("stage", "distill")] * 2
    assert [each["undo"]["outcome"] for each in found] == ["done", "moot"], "both alarms led to one rollback"
    assert deployment.revision() == good
    assert 'slimline_blame_info{revision="' + bad in running.exporter.render().decode()
    again = process(url, deployment, state, "act")
    again.poll()
    assert answers(state) == found, "a restarted monitor doesn't answer again"


def test_a_proposal_changes_nothing(url: str, send: Send, watched_releases: tuple[Path, Path], tmp_path: Path) -> None:
    deployment = deployed(tmp_path / "deploy", watched_releases)
    before, state = deployment.revision(), tmp_path / "state"
    running = process(url, deployment, state, "propose")
    with EventStore.open(url) as store:
        send(store, 600, wrong=0.5, start=time.time() - 6)
    until(lambda: not running.poll() and len(answers(state)) == 2, 60)
    assert [each["undo"]["outcome"] for each in answers(state)] == ["proposed"] * 2
    assert deployment.revision() == before


def test_what_nothing_explains_is_looked_at_once_more_before_anything_is_done(
    url: str, send: Send, watched_releases: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an alarm after a few dozen rows: the rows that came since tell the stage."""
    looks: list[str] = []
    chosen: list[Monitor] = []

    def early(alarm: Any, *arguments: Any, **keys: Any) -> Blame:
        found = on_alarm(alarm, *arguments, **keys)
        chosen.append(keys["settings"])
        looks.append(alarm.id)
        return replace(found, kind="nothing", stage=None) if looks.count(alarm.id) == 1 else found

    monkeypatch.setattr(responding, "on_alarm", early)
    monkeypatch.setattr(responding, "AGAIN", 0.5)
    deployment = deployed(tmp_path / "deploy", watched_releases)
    _, good = (manifest.digest(each) for each in watched_releases)
    state = tmp_path / "state"
    running = process(url, deployment, state, "act")
    with EventStore.open(url) as store:
        send(store, 600, wrong=0.5, start=time.time() - 6)
    until(lambda: not running.poll() and deployment.revision() == good, 60)
    until(lambda: not running.poll() and len(answers(state)) == 4, 60)
    outcomes = [(each["undo"]["outcome"], "blame" in each) for each in answers(state)]
    assert sorted(outcomes) == [("done", True), ("moot", True), ("waiting", False), ("waiting", False)]
    assert [looks.count(each) for each in set(looks)] == [2, 2]
    assert {each.undo.policy for each in chosen} == {"act"}, "as the monitor's --params say, not the release"
