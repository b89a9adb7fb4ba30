"""One alarm leads to one action, whoever tells it, however often, and whatever kills whom in between."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from slimline.cli.blaming import app
from slimline.deployment import Deployment
from slimline.errors import ParamsError, UndoError
from slimline.monitor.alarm import Alarm
from slimline.monitor.journal import Journal
from slimline.monitor.target import Move
from slimline.monitor.targets.command import Command
from slimline.monitor.targets.deployment import Deployment as Target
from slimline.monitor.undo import Undo, alarm_of
from slimline.params import Undo as Policy
from tests.monitor.undo.conftest import Clock, Make, alarm, outcomes
from tests.monitor.undo.killed import KilledAfter, KilledBefore, kill


def test_an_alarm_moves_the_pointer_back_and_says_so(undo: Make, deployed: Deployment, journal: Journal) -> None:
    first, second = deployed.earlier()[0], str(deployed.revision())
    action = undo().handle(alarm(second), by="monitor")
    assert (action.outcome, deployed.revision()) == ("done", first)
    begun, done = journal.entries()
    assert [begun["outcome"], done["outcome"]] == ["begun", "done"]
    assert done["by"] == "monitor"
    assert done["evidence"]["standing"]["message"] == "it fell"
    assert done["move"] == {
        "kind": "rollback", "what": begun["why"], "revision": second, "variant": "default", "to": first,
    }  # fmt: skip
    assert alarm_of(done) == alarm(second)


def test_the_same_alarm_twice_is_one_action(undo: Make, deployed: Deployment, journal: Journal) -> None:
    told = alarm(str(deployed.revision()))
    first = undo().handle(told, by="monitor")
    assert undo().handle(told, by="alertmanager") == first
    other = undo().handle(alarm(told.standing.revision, signal="agreement"), by="monitor")
    assert other.outcome == "moot", "another signal of the release that is gone"
    assert outcomes(journal) == ["begun", "done", "moot"]
    assert [each["action"] for each in deployed.history()].count("rollback") == 1


def handled(deployment: Path, folder: Path, told: Alarm, barrier: Any, answers: Any) -> None:
    barrier.wait()
    executor = Undo(Policy(policy="act"), Target(str(deployment)), Journal(folder))
    answers.put(executor.handle(told, by=f"process {os.getpid()}").outcome)


def test_callers_at_once_are_one_action(deployed: Deployment, journal: Journal) -> None:
    told = alarm(str(deployed.revision()))
    spawn = multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(4), spawn.Queue()
    arguments = (deployed.path, journal.folder, told, barrier, answers)
    callers = [spawn.Process(target=handled, args=arguments) for _ in range(4)]
    for each in callers:
        each.start()
    assert [answers.get(timeout=60) for _ in callers] == ["done"] * 4
    for each in callers:
        each.join()
    assert outcomes(journal) == ["begun", "done"]
    assert [each["action"] for each in deployed.history()].count("rollback") == 1


@pytest.mark.parametrize("acted", [False, True], ids=["before the action", "after it"])
def test_a_doer_that_was_killed_is_found_out(undo: Make, deployed: Deployment, journal: Journal, acted: bool) -> None:
    told = alarm(str(deployed.revision()))
    kill((KilledAfter if acted else KilledBefore)(str(deployed.path)), journal, told)
    action = undo().handle(told, by="monitor again")
    assert (action.outcome, deployed.previous()) == ("done", None)
    assert outcomes(journal) == (["begun", "done"] if acted else ["begun", "interrupted", "begun", "done"])
    assert [each["action"] for each in deployed.history()].count("rollback") == 1


class Elsewhere(Command):
    """A program that is run, and whose doer is killed before it can say so."""

    def move(self, move: Move, alarm: Alarm) -> str:
        super().move(move, alarm)
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


def told_times(path: Path) -> int:
    return len(path.read_text()) if path.exists() else 0


def test_what_nobody_knows_the_end_of_is_left_to_a_person(journal: Journal, clock: Clock, tmp_path: Path) -> None:
    """Or a program that can't be asked would run again and again, every few seconds, outside the budget."""
    argv = [sys.executable, "-c", "import sys; open(sys.argv[1], 'a').write('x')", str(tmp_path / "runs")]
    told = alarm("sha256:" + "1" * 64)
    kill(Elsewhere(argv), journal, told)
    executor = Undo(Policy(policy="act", settle_minutes=10), Command(argv), journal)
    for each in (told, alarm(told.standing.revision, signal="agreement"), told):
        action = executor.handle(each, by="monitor")
        assert action.outcome == "held"
        assert f"slimline undo {told.id}" in action.why
    assert outcomes(journal) == ["begun", "unknown", "held", "held"]
    assert executor.handle(alarm("sha256:" + "2" * 64), by="monitor").outcome == "settling", "it counts as a rollback"
    assert told_times(tmp_path / "runs") == 1
    assert executor.handle(told, by="ann", accept=True).outcome == "done"
    assert told_times(tmp_path / "runs") == 2


class Breaks(Command):
    """Runs its program, then raises what no target should."""

    def move(self, move: Move, alarm: Alarm) -> str:
        super().move(move, alarm)
        raise RuntimeError("a mistake in a plug-in")


def test_a_move_that_breaks_failed_and_counts(journal: Journal, clock: Clock, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; open(sys.argv[1], 'a').write('x')", str(tmp_path / "runs")]
    told = alarm("sha256:" + "1" * 64)
    executor = Undo(Policy(policy="act", settle_minutes=10, budget=2, per_hours=24), Breaks(argv), journal)
    action = executor.handle(told, by="monitor")
    assert action.outcome == "failed"
    assert "RuntimeError: a mistake in a plug-in" in action.why
    found = []
    for _ in range(3):
        clock.now += 15
        found.append(executor.handle(told, by="monitor").outcome)
        clock.now += 600
    assert found == ["settling", "failed", "spent"]
    assert told_times(tmp_path / "runs") == 2


def test_a_plan_that_breaks_failed(journal: Journal, deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(*_: Any) -> Move:
        raise KeyError("weight")

    monkeypatch.setattr(Target, "plan", plan)
    action = Undo(Policy(policy="act"), Target(str(deployed.path)), journal).handle(
        alarm("sha256:" + "1" * 64), by="monitor"
    )
    assert (action.outcome, action.why) == ("failed", "KeyError: 'weight'")


def test_forgiving_hides_no_action_whose_doer_was_killed(undo: Make, deployed: Deployment, journal: Journal) -> None:
    """Or the budget and the settling time never learn of it."""
    told = alarm(str(deployed.revision()))
    kill(KilledAfter(str(deployed.path)), journal, told)
    undo().forgive(told, by="ann")
    assert outcomes(journal) == ["begun", "done", "forgiven"]


def test_a_line_that_was_torn_is_no_entry(undo: Make, deployed: Deployment, journal: Journal) -> None:
    told = alarm(str(deployed.revision()))
    journal.folder.mkdir()
    (journal.folder / "journal.jsonl").write_text('{"alarm": "x", "outco')
    assert undo().handle(told, by="monitor").outcome == "done"
    assert outcomes(journal) == ["begun", "done"]


def test_propose_moves_nothing_until_a_person_accepts(undo: Make, deployed: Deployment, journal: Journal) -> None:
    told = alarm(str(deployed.revision()))
    for _ in range(3):
        action = undo(policy="propose").handle(told, by="monitor")
    assert (action.outcome, deployed.revision()) == ("proposed", told.standing.revision)
    assert action.move is not None
    assert undo(policy="propose").handle(told, by="ann", accept=True).outcome == "done"
    assert outcomes(journal) == ["proposed", "begun", "done"]
    assert journal.entries()[-1]["by"] == "ann"


def test_off_and_signals_that_are_not_listed_write_nothing(undo: Make, deployed: Deployment, journal: Journal) -> None:
    told = alarm(str(deployed.revision()), signal="drift")
    assert undo(policy="off").handle(told, by="monitor").outcome == "off"
    assert undo().handle(told, by="monitor").outcome == "ignored"
    assert journal.entries() == []


def told_by_the_monitor(deployed: Deployment, journal: Journal) -> Alarm:
    """An alarm under the id that the monitor gives it, proposed to people."""
    revision = str(deployed.revision())
    standing = alarm(revision).standing
    raised = Alarm(f"accuracy:{revision}:default:1000000000", 1e9, standing)
    Undo(Policy(), Target(str(deployed.path)), journal).handle(raised, by="monitor")
    return raised


@pytest.mark.parametrize("begins", ["accuracy:sha256:{}", "accuracy:{}", "accuracy"])
def test_the_beginning_of_an_id_will_do(
    deployed: Deployment, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: str
) -> None:
    """On a machine without a project: the release says how, the monitor's folders say where."""
    monkeypatch.chdir(tmp_path)
    raised = told_by_the_monitor(deployed, journal)
    arguments = ["undo", begins.format(raised.standing.revision[7:11]), "--folder", str(journal.folder)]
    done = CliRunner().invoke(app, [*arguments, "--deployment", str(deployed.path)])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("done: ")
    assert deployed.revision() != raised.standing.revision


def test_a_dry_run_changes_and_writes_nothing(undo: Make, deployed: Deployment, journal: Journal) -> None:
    told = alarm(str(deployed.revision()))
    action = undo().handle(told, by="ann", dry_run=True)
    assert action.outcome == "dry"
    assert "go back from" in action.why
    assert (deployed.revision(), journal.entries()) == (told.standing.revision, [])


def test_the_policy_is_read_from_params(tmp_path: Path) -> None:
    target = {"name": "command", "argv": ["true"]}
    executor = Undo.configured(Policy.model_validate({"target": target}), tmp_path)
    assert executor.target.name == "command"
    with pytest.raises(ParamsError, match=r"params.yaml: monitor.undo.target.pth: unknown key"):
        Undo.configured(Policy.model_validate({"target": {"name": "deployment", "pth": "x"}}), tmp_path)


def test_the_journal_is_json_by_the_line(undo: Make, deployed: Deployment, journal: Journal) -> None:
    undo().handle(alarm(str(deployed.revision())), by="monitor")
    for line in (journal.folder / "journal.jsonl").read_text().splitlines():
        assert {"time", "alarm", "outcome", "why", "by", "evidence", "move", "verdict", "blame"} == json.loads(
            line
        ).keys()
    with pytest.raises(UndoError, match="holds no alarm"):
        alarm_of({"time": 1, "evidence": {}})
