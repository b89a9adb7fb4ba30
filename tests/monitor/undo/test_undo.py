"""One alarm leads to one action, whoever tells it, however often, and whatever kills whom in between."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from slimline.cli.blaming import app
from slimline.deployment import Deployment
from slimline.errors import ParamsError, UndoError
from slimline.monitor.alarm import Alarm
from slimline.monitor.blame import Blame, blame
from slimline.monitor.journal import Journal
from slimline.monitor.target import Move
from slimline.monitor.targets.command import Command
from slimline.monitor.targets.deployment import Deployment as Target
from slimline.monitor.undo import Undo, alarm_of
from slimline.params import Undo as Policy
from tests.monitor.undo.conftest import Clock, alarm

Make = Callable[..., Undo]


def outcomes(journal: Journal) -> list[str]:
    return [each["outcome"] for each in journal.entries()]


def verdict(two_releases: tuple[Path, Path], kind: str) -> Blame:
    """Return a real verdict on the first release with another ``kind``."""
    from dataclasses import replace

    return replace(blame(two_releases[0], rounds=0), kind=kind, why="because")


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


def test_a_folder_without_a_deployment_answers_for_no_release(
    undo: Make, deployed: Deployment, journal: Journal, tmp_path: Path
) -> None:
    """A person would be told that a release is gone which answers on."""
    told = alarm(str(deployed.revision()))
    action = Undo(Policy(policy="act"), Target(str(tmp_path / "other")), journal).handle(told, by="ann", accept=True)
    assert action.outcome == "failed"
    assert f"{tmp_path / 'other'}: no release is current there" in action.why
    assert undo().handle(told, by="ann", accept=True).outcome == "done"


def test_a_rollback_settles_and_the_budget_runs_out(
    undo: Make, deployed: Deployment, journal: Journal, clock: Clock
) -> None:
    first, second = deployed.earlier()[0], str(deployed.revision())
    target, other = undo(settle_minutes=10, budget=2, per_hours=1), "sha256:" + "1" * 64
    assert target.handle(alarm(second), by="monitor").outcome == "done"

    def again(since: float) -> str:
        """The release comes back and regresses once more; what it goes back to never did."""
        deployed.activate(second)
        return target.handle(alarm(second, since=since), by="monitor", regressed=[other]).outcome

    clock.now += 60
    assert again(1e9 + 60) == "settling"
    clock.now += 540
    assert again(1e9 + 60) == "done", "the same alarm, told again once things have settled"
    clock.now += 600
    assert again(1e9 + 1200) == "spent"
    clock.now += 3000
    assert again(1e9 + 1200) == "done"
    assert deployed.revision() == first


def test_it_never_goes_back_to_what_regressed_itself(
    undo: Make, deployed: Deployment, journal: Journal, clock: Clock
) -> None:
    first, second = deployed.earlier()[0], str(deployed.revision())
    action = undo().handle(alarm(second), by="monitor", regressed=[first])
    assert (action.outcome, deployed.revision()) == ("failed", second)
    assert "that did not regress itself" in action.why
    journal.append({"alarm": "x", "outcome": "held", "evidence": alarm(first).as_dict()})
    assert undo().handle(alarm(second, since=2e9), by="monitor").outcome == "failed"
    undo().forgive(alarm(first), by="ann")
    assert undo().handle(alarm(second, since=2e9), by="monitor").outcome == "done"


def test_it_goes_past_a_release_that_regressed(
    undo: Make, deployed: Deployment, resealed: Any, two_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = deployed.earlier()[0], str(deployed.revision())
    third = deployed.install(resealed(two_releases[1], tmp_path / "third", lambda _, card: card.update(note="third")))
    deployed.activate(third)
    action = undo().handle(alarm(third), by="monitor", regressed=[second])
    assert (action.outcome, deployed.revision()) == ("done", first)


def test_a_dry_run_changes_and_writes_nothing(undo: Make, deployed: Deployment, journal: Journal) -> None:
    told = alarm(str(deployed.revision()))
    action = undo().handle(told, by="ann", dry_run=True)
    assert action.outcome == "dry"
    assert "go back from" in action.why
    assert (deployed.revision(), journal.entries()) == (told.standing.revision, [])


def test_a_release_that_somebody_replaced_meanwhile_is_left_alone(
    undo: Make, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = deployed.earlier()[0], str(deployed.revision())
    plan = Target.plan

    def late(self: Target, told: Alarm, avoid: Any) -> Move | None:
        found = plan(self, told, avoid)
        deployed.rollback()
        return found

    monkeypatch.setattr(Target, "plan", late)
    before = len(deployed.history())
    undo().handle(alarm(second), by="monitor")
    assert deployed.revision() == first
    assert len(deployed.history()) == before + 1


def test_a_release_that_is_damaged_is_not_gone_back_to(undo: Make, deployed: Deployment) -> None:
    first, second = deployed.earlier()[0], str(deployed.revision())
    (deployed.directory(first) / "golden.npz").write_bytes(b"x")
    action = undo().handle(alarm(second), by="monitor")
    assert (action.outcome, deployed.revision()) == ("failed", second)
    assert "golden.npz" in action.why


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
