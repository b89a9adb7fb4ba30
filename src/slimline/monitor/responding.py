"""What follows an alarm, beside the loop: its stage is blamed, then undo does what the policy says.

Blame replays a chain for seconds and undo waits for locks, so both run in a thread of their own. What came of an alarm
goes back to the loop, which writes it down. Undo is asked again while the alarm holds and something may still be done:
it may have been settling, out of its budget or held by people. An alarm that nothing explains came on few rows: it is
looked at once more, when more of them have come, before that is a verdict.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from slimline.errors import SlimlineError
from slimline.events import EventStore
from slimline.monitor.alarm import Alarm
from slimline.monitor.blame import Blame, on_alarm
from slimline.monitor.releases import Releases
from slimline.monitor.standing import Standing
from slimline.monitor.undo import FINAL, Undo, on
from slimline.monitor.watched import Watched
from slimline.params import Monitor
from slimline.params import Undo as Policy

UNBLAMED = ("traffic", "coverage")  # no stage of a model makes requests or labels stay away
AGAIN = 15.0  # seconds until an alarm that holds is looked at again
ENDED = frozenset({*FINAL, "off", "ignored"})  # outcomes after which nothing more is done about an alarm
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """An alarm, what it is about, and what else stands how."""

    alarm: Alarm
    watched: Watched
    standings: tuple[Standing, ...] = ()
    regressed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Answer:
    """What came of an alarm, as the log keeps it."""

    alarm: Alarm
    document: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        blame, undo = self.document.get("blame"), self.document["undo"]
        told = "not explained" if blame is None else f"blamed on {blame['verdict']} ({blame['why']})"
        return f"{told}; undo: {undo['outcome']} ({undo['why']})"


class Responder:
    """``submit`` alarms; take ``answers``.

    ``folder`` is undo's, ``seconds`` how far back blame looks; ``chosen`` stands in for the releases' own section
    ``monitor``.
    """

    def __init__(
        self, store: EventStore, releases: Releases, folder: Path, chosen: Monitor | None = None,
        seconds: float = 3600.0,
    ) -> None:  # fmt: skip
        self.store, self.releases, self.folder, self.chosen, self.seconds = store, releases, folder, chosen, seconds
        self._cases: SimpleQueue[Case | None] = SimpleQueue()
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._blames: dict[str, Blame | None] = {}
        self._asked: dict[str, float] = {}
        self._unexplained: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="responder", daemon=True)
        self._thread.start()

    def submit(self, case: Case) -> None:
        """Have an alarm answered, unless that was tried lately; never waits."""
        last = self._asked.get(case.alarm.id)
        if last is not None and time.monotonic() - last < AGAIN:
            return
        self._asked[case.alarm.id] = time.monotonic()
        self._cases.put(case)

    def answers(self) -> list[Answer]:
        """Return what came of alarms since the last call."""
        found = []
        while not self._answers.empty():
            found.append(self._answers.get())
        return found

    def forget(self, holding: Collection[str]) -> None:
        """Let go of the alarms that no longer hold; ``holding`` are the ids of those that do."""
        for known in (self._blames, self._asked):
            for alarm in known.keys() - set(holding):
                known.pop(alarm, None)
        self._unexplained &= set(holding)

    def close(self, seconds: float = 5.0) -> None:
        """Finish what is being done, within so long."""
        self._cases.put(None)
        self._thread.join(seconds)

    def _work(self) -> None:
        while (case := self._cases.get()) is not None:
            try:
                self._answers.put(self._answer(case))
            except Exception:  # a target is a plug-in and raises what it likes; the thread goes on
                log.exception("alarm %s can't be answered: please report this", case.alarm.id)

    def _answer(self, case: Case) -> Answer:
        alarm = case.alarm
        document: dict[str, Any] = {}
        blame = self._blame(case)
        if blame is not None and blame.kind == "nothing" and alarm.id not in self._unexplained:
            self._unexplained.add(alarm.id)
            del self._blames[alarm.id]
            document["undo"] = {"outcome": "waiting", "why": f"nothing explains it yet: again in {AGAIN:.0f} s"}
            return Answer(alarm, document)
        if blame is not None:
            document["blame"] = {"verdict": blame.verdict, "kind": blame.kind, "stage": blame.stage, "why": blame.why}
        try:
            undo = Undo.configured(self.policy(case.watched.params.undo), self.folder, where="monitor.undo")
            action = undo.handle(alarm, by="monitor", blame=blame, regressed=case.regressed)
            document["undo"] = {"outcome": action.outcome, "why": action.why}
        except SlimlineError as error:
            document["undo"] = {"outcome": "failed", "why": str(error)}
        return Answer(alarm, document)

    def _blame(self, case: Case) -> Blame | None:
        alarm, release = case.alarm, case.watched.release
        if release is None or alarm.standing.signal in UNBLAMED:
            return None
        if alarm.id not in self._blames:
            late = max(0.0, alarm.time - alarm.standing.since)  # the monitor was away when it happened
            try:
                self._blames[alarm.id] = on_alarm(
                    alarm, release, self.store, incumbent=self.releases.incumbent(alarm.standing.revision),
                    standings=case.standings, seconds=self.seconds + late, settings=case.watched.params,
                )  # fmt: skip
            except SlimlineError as error:
                log.warning("alarm %s can't be explained: %s", alarm.id, error)
                self._blames[alarm.id] = None
        return self._blames[alarm.id]

    def explain(self, alarm: Alarm) -> Blame | None:
        """Blame for an alarm that came from outside; None where its release isn't known here. Any thread may ask."""
        release = self.releases.find(alarm.standing.revision)
        if release is None or alarm.standing.signal in UNBLAMED:
            return None
        incumbent = self.releases.incumbent(alarm.standing.revision)
        return on_alarm(alarm, release, self.store, incumbent=incumbent, seconds=self.seconds, settings=self.chosen)

    def policy(self, policy: Policy) -> Policy:
        """Return the policy; a target ``deployment`` without a path is the deployment that is watched."""
        return on(policy, None if self.releases.deployment is None else self.releases.deployment.path)
