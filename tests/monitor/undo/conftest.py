"""Real deployments and a journal, with alarms about what answers in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slimline.deployment import Deployment
from slimline.monitor.alarm import Alarm
from slimline.monitor.journal import Journal
from slimline.monitor.standing import Standing, State
from slimline.monitor.targets.deployment import Deployment as Target
from slimline.monitor.undo import Undo
from slimline.params import Undo as Policy

Make = Callable[..., Undo]


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Journal:
    return Journal(tmp_path / "undo", clock)


@pytest.fixture
def deployed(two_releases: tuple[Path, Path], tmp_path: Path) -> Deployment:
    """A deployment in which the second release followed the first."""
    made = Deployment(tmp_path / "deploy")
    for each in two_releases:
        made.activate(made.install(each))
    return made


def alarm(revision: str, variant: str = "default", signal: str = "accuracy", since: float = 1e9) -> Alarm:
    standing = Standing(signal, revision, variant, State.REGRESSED, "it fell", since, 500, 0.7, (0.65, 0.75), 0.9)
    return Alarm(f"{signal}:{revision[7:19]}:{variant}:{since:.0f}", since + 5, standing)


def outcomes(journal: Journal) -> list[str]:
    return [each["outcome"] for each in journal.entries()]


@pytest.fixture
def undo(journal: Journal, deployed: Deployment) -> Make:
    """Return an executor on ``deployed``; keywords are keys of the policy, act unless said otherwise."""

    def make(explain: Any = None, **keys: Any) -> Undo:
        return Undo(Policy(**{"policy": "act", **keys}), Target(str(deployed.path)), journal, explain)

    return make
