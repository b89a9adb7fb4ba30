"""A hold stops people and the monitor, and waits for what has begun."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from slimline.cli.blaming import app
from slimline.deployment import Deployment
from slimline.errors import UndoError
from slimline.monitor.alarm import Alarm
from slimline.monitor.journal import Journal
from slimline.monitor.target import Move
from slimline.monitor.targets.deployment import Deployment as Target
from slimline.monitor.undo import Undo
from slimline.params import Undo as Policy
from tests.monitor.undo.conftest import Make, alarm
from tests.monitor.undo.killed import KilledBefore, kill


def test_a_hold_stops_people_too(undo: Make, deployed: Deployment, journal: Journal) -> None:
    told = alarm(str(deployed.revision()))
    journal.hold("ann", "we look at it")
    assert "ann holds undo off: we look at it" in undo().handle(told, by="monitor").why
    assert undo().handle(told, by="bob", accept=True, dry_run=True).outcome == "held", "as it would be"
    assert undo().handle(told, by="bob", accept=True).outcome == "held"
    journal.release("bob")
    journal.release("bob")
    assert undo().handle(told, by="monitor").outcome == "done"
    locks = [(each["outcome"], each["by"], each["why"]) for each in journal.lines() if each["alarm"] is None]
    assert locks == [("locked", "ann", "we look at it"), ("unlocked", "bob", "locked by ann: we look at it")]


class Slow(Target):
    """Says that it moves, and moves once it is told to."""

    began, go = threading.Event(), threading.Event()

    def move(self, move: Move, alarm: Alarm) -> str:
        self.began.set()
        assert self.go.wait(60)
        return super().move(move, alarm)


@pytest.fixture
def moving(deployed: Deployment, journal: Journal) -> Iterator[Slow]:
    """An executor in the middle of its move."""
    target = Slow(str(deployed.path))
    target.began.clear()
    target.go.clear()
    executor = Undo(Policy(policy="act"), target, Journal(journal.folder))
    doer = threading.Thread(target=executor.handle, args=(alarm(str(deployed.revision())),), kwargs={"by": "monitor"})
    doer.start()
    assert target.began.wait(60)
    yield target
    target.go.set()
    doer.join()


def test_a_hold_waits_for_the_move_that_is_under_way(moving: Slow, deployed: Deployment, journal: Journal) -> None:
    before = deployed.revision()
    threading.Timer(0.3, moving.go.set).start()
    assert journal.hold("ann", "we look at it") is None
    assert deployed.revision() != before, "what had begun is over"
    assert [each["outcome"] for each in journal.lines()] == ["begun", "locked", "done"]


def test_a_hold_that_waits_in_vain_is_set_and_says_so(moving: Slow, deployed: Deployment, journal: Journal) -> None:
    before = deployed.revision()
    with pytest.raises(UndoError, match=f"{journal.folder}: undo is held off from now on, but after 0.2 s .* is still"):
        Journal(journal.folder, lock_timeout=0.2).hold("ann", "we look at it")
    assert deployed.revision() == before
    held = journal.held()
    assert held is not None
    assert held["by"] == "ann"
    assert [each["outcome"] for each in journal.lines()] == ["begun", "locked"]


def test_a_hold_tells_of_a_doer_that_was_killed(deployed: Deployment, journal: Journal) -> None:
    """Whatever it started, a program on another machine say, may still be moving traffic."""
    kill(KilledBefore(str(deployed.path)), journal, alarm(str(deployed.revision())))
    begun = journal.hold("ann", "we look at it")
    assert begun is not None
    assert begun["outcome"] == "begun"


def test_the_command_says_what_a_hold_found(deployed: Deployment, journal: Journal) -> None:
    def undo(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["undo", "--folder", str(journal.folder), *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert "undo is held off, and nothing is being moved" in undo("--lock", "we look at it")
    undo("--unlock")
    kill(KilledBefore(str(deployed.path)), journal, alarm(str(deployed.revision())))
    assert "go back from" in undo("--lock", "again")
