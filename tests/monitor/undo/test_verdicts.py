"""A verdict that clears the model keeps it, whoever tells the alarm next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slimline.deployment import Deployment
from slimline.monitor.alarm import Alarm
from slimline.monitor.blame import Blame, blame
from slimline.monitor.journal import Journal
from tests.monitor.undo.conftest import Make, alarm


def verdict(two_releases: tuple[Path, Path], kind: str) -> Blame:
    """Return a real verdict on the first release with another ``kind``."""
    return replace(blame(two_releases[0], rounds=0), kind=kind, why="because")


@pytest.mark.parametrize("kind", ["data", "serving"])
def test_a_verdict_that_clears_the_model_keeps_it(
    undo: Make, deployed: Deployment, journal: Journal, two_releases: tuple[Path, Path], kind: str
) -> None:
    told = alarm(str(deployed.revision()))
    action = undo().handle(told, by="monitor", blame=verdict(two_releases, kind))
    assert (action.outcome, deployed.revision()) == ("advised", told.standing.revision)
    assert {"data": "an older model would meet the same input", "serving": "restart the process"}[kind] in action.why
    assert journal.entries()[0]["blame"]["verdict"] == kind
    assert undo().handle(told, by="ann", accept=True).outcome == "done", "a person may know better"


def test_it_asks_for_the_blame_only_when_something_would_be_done(
    undo: Make, deployed: Deployment, two_releases: tuple[Path, Path]
) -> None:
    asked: list[Alarm] = []

    def explain(told: Alarm) -> Blame:
        asked.append(told)
        return verdict(two_releases, "data")

    told = alarm(str(deployed.revision()))
    undo(explain, policy="off").handle(told, by="monitor")
    undo(explain).handle(alarm("sha256:" + "0" * 64), by="monitor")
    assert asked == []
    assert undo(explain).handle(told, by="monitor").outcome == "advised"
    assert asked == [told]


def test_a_verdict_holds_for_whoever_tells_the_alarm_next(
    undo: Make, deployed: Deployment, two_releases: tuple[Path, Path]
) -> None:
    """Alertmanager tells it too, after the monitor had it explained."""
    told = alarm(str(deployed.revision()))
    undo().handle(told, by="monitor", blame=verdict(two_releases, "data"))
    action = undo().handle(told, by="alertmanager")
    assert (action.outcome, deployed.revision()) == ("advised", told.standing.revision)


def test_a_verdict_that_changes_is_written_down_once(
    undo: Make, deployed: Deployment, journal: Journal, two_releases: tuple[Path, Path]
) -> None:
    told = alarm(str(deployed.revision()))
    for kind in ("data", "data", "serving", "serving"):
        action = undo().handle(told, by="monitor", blame=verdict(two_releases, kind))
        assert action.verdict == kind
    undo().handle(told, by="alertmanager")
    assert [(each["outcome"], each["verdict"]) for each in journal.entries()] == [
        ("advised", "data"),
        ("advised", "serving"),
    ]


def test_a_hold_in_between_makes_no_verdict_forgotten(
    undo: Make, deployed: Deployment, journal: Journal, two_releases: tuple[Path, Path]
) -> None:
    """Who tells the alarm next brings no verdict of its own, and must not move traffic that an earlier one keeps."""
    told = alarm(str(deployed.revision()))
    undo().handle(told, by="monitor", blame=verdict(two_releases, "data"))
    journal.hold("ann", "we look at it")
    assert undo().handle(told, by="alertmanager").outcome == "held"
    journal.release("ann")
    action = undo().handle(told, by="alertmanager")
    assert (action.outcome, action.verdict, deployed.revision()) == ("advised", "data", told.standing.revision)
    assert {each["verdict"] for each in journal.entries()} == {"data"}
