"""Doers of an undo that are killed in the middle of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

from slimline.monitor.alarm import Alarm
from slimline.monitor.journal import Journal
from slimline.monitor.target import Move
from slimline.monitor.targets.command import Command
from slimline.monitor.targets.deployment import Deployment as Target
from slimline.monitor.undo import Undo
from slimline.params import Undo as Policy
from tests.monitor.undo.conftest import outcomes


class KilledBefore(Target):
    """kill -9 once the action is announced."""

    def move(self, move: Move, alarm: Alarm) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().move(move, alarm)


class KilledAfter(Target):
    """kill -9 between the action and the line that says so."""

    def move(self, move: Move, alarm: Alarm) -> str:
        super().move(move, alarm)
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


def handled_by(target: Target | Command, folder: Path, told: Alarm) -> None:
    Undo(Policy(policy="act"), target, Journal(folder)).handle(told, by="monitor")


def kill(target: Target | Command, journal: Journal, told: Alarm) -> None:
    """Have an alarm handled by a process that dies in ``target``; it holds the journal's lock then."""
    doer = multiprocessing.get_context("spawn").Process(target=handled_by, args=(target, journal.folder, told))
    doer.start()
    doer.join()
    assert doer.exitcode == -signal.SIGKILL
    assert outcomes(journal) == ["begun"]
