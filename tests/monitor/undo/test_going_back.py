"""Which release traffic goes back to, how often, and when none will do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slimline.deployment import Deployment
from slimline.monitor.alarm import Alarm
from slimline.monitor.journal import Journal
from slimline.monitor.target import Move
from slimline.monitor.targets.deployment import Deployment as Target
from slimline.monitor.undo import Undo
from slimline.params import Undo as Policy
from tests.monitor.undo.conftest import Clock, Make, alarm


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
