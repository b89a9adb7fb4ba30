"""Undo: take a regressed release out of traffic, once, and write down who did it and why.

The monitor, Alertmanager and the command line all call ``Undo.handle``. Callers wait for each other; what an alarm led
to is looked up before anything is done, so an alarm that is told twice leads to one action. An action is announced in
the journal before it begins: one whose doer was killed is found there and settled by asking the target.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimline import params
from slimline.errors import SlimlineError, UndoError
from slimline.monitor.alarm import Alarm
from slimline.monitor.blame import Blame
from slimline.monitor.journal import FOLDER, Journal
from slimline.monitor.target import Move, Target
from slimline.params import Configured
from slimline.params import Undo as Policy

FINAL = ("done", "moot", "forgiven")
TRIED = ("done", "failed", "unknown")  # how what was begun ends, if it may have moved traffic
EXONERATED = ("data", "serving")  # verdicts under which an older model would do no better
INSTEAD = {
    "data": "an older model would meet the same input: look at what changed in it, and train on it",
    "serving": "the model isn't slower: restart the process, give it its threads and cores back, or move it",
}
Explain = Callable[[Alarm], Blame | None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Action:
    """What came of an alarm.

    ``outcome``: done, proposed, dry (what would be done), moot (the release answers nobody any more), failed, advised
    (the verdict speaks against it; ``why`` says what to do instead), held (by people, or for one to look at what nobody
    knows the end of), settling, spent (the budget of rollbacks), ignored (the signal isn't in ``on``), off, forgiven.
    The journal also knows begun, and of what was begun by a doer that was killed: done, interrupted (it didn't come to
    pass), unknown (the target can't say). ``move`` is what was or would be done.
    """

    alarm: str
    outcome: str
    why: str
    move: Move | None = None
    verdict: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return {
            "alarm": self.alarm, "outcome": self.outcome, "why": self.why, "verdict": self.verdict,
            "move": None if self.move is None else self.move.as_dict(),
        }  # fmt: skip


class Undo:
    """The one executor. ``explain`` blames an alarm; it is asked only when something would be done."""

    def __init__(self, policy: Policy, target: Target, journal: Journal, explain: Explain | None = None) -> None:
        self.policy = policy
        self.target = target
        self.journal = journal
        self._explain = explain

    @classmethod
    def configured(
        cls, policy: Policy, folder: Path = FOLDER, explain: Explain | None = None, where: str = "params.yaml"
    ) -> Undo:
        """Build it from params.yaml's section ``monitor.undo``. Raises ParamsError naming file and key."""
        target: Target = params.configure("targets", policy.target, f"{where}: monitor.undo.target")
        return cls(policy, target, Journal(folder), explain)

    def handle(
        self,
        alarm: Alarm,
        *,
        by: str,
        blame: Blame | None = None,
        regressed: Collection[str] = (),
        accept: bool = False,
        dry_run: bool = False,
    ) -> Action:
        """Do for an alarm what the policy says, once, and return what came of it; call it again as often as you like.

        ``by`` is who asks, ``regressed`` are revisions known to be bad. ``accept``: a person has decided, so policy,
        verdict, budget and settling time don't stop it; a hold does. ``dry_run`` changes and writes nothing. What the
        target can't do is the outcome ``failed``, never an error.
        """
        if self.policy.policy == "off" and not accept:
            return Action(alarm.id, "off", "params.yaml: monitor.undo.policy is off")
        if alarm.standing.signal not in self.policy.on and not accept:
            return Action(alarm.id, "ignored", f"params.yaml: monitor.undo.on has no {alarm.standing.signal}")
        with self.journal.locked():
            entries = self._recovered(dry_run=dry_run)
            last = next((each for each in reversed(entries) if each.get("alarm") == alarm.id), None)
            if last is not None and last["outcome"] in FINAL:
                return _action(last)
            told = _told(blame) or (None if last is None else last.get("blame"))
            move = None
            try:
                move = self.target.plan(alarm, {*regressed, *_regressed(entries), alarm.standing.revision})
            except Exception as error:  # noqa: BLE001  (a target is a plug-in and raises what it likes)
                return self._noted(last, Action(alarm.id, "failed", _why(error)), alarm, by, told, dry_run=dry_run)
            if move is None:
                gone = "its release answers nobody any more"
                return self._noted(last, Action(alarm.id, "moot", gone), alarm, by, told, dry_run=dry_run)
            told = told or self._blamed(alarm)
            verdict = None if told is None else told["verdict"]
            if stop := self._stop(entries, alarm, told, accept=accept):
                return self._noted(last, Action(alarm.id, *stop, move, verdict), alarm, by, told, dry_run=dry_run)
            if dry_run:
                return Action(alarm.id, "dry", move.what, move, verdict)
            if self.policy.policy == "propose" and not accept:
                return self._noted(last, Action(alarm.id, "proposed", move.what, move, verdict), alarm, by, told)
            return self._done(move, alarm, by, told)

    def forgive(self, alarm: Alarm, *, by: str) -> Action:
        """Note that a person finds nothing wrong with an alarm's release: it may be gone back to again."""
        with self.journal.locked():
            self._recovered(dry_run=False)
            return self._write(Action(alarm.id, "forgiven", "its release may be gone back to"), alarm, by, None)

    def _stop(
        self, entries: list[dict[str, Any]], alarm: Alarm, blame: dict[str, Any] | None, *, accept: bool
    ) -> tuple[str, str] | None:
        """Return the outcome and why nothing may be done now, or None."""
        if held := self.journal.held():
            return "held", f"{held['by']} holds undo off: {held['why'] or 'no reason given'}; slimline undo --unlock"
        if accept:
            return None
        if (begun := _unknown(entries, alarm.standing.revision)) is not None:
            return "held", f"{begun['why']}: see whether it did; slimline undo {begun['alarm']} does it again"
        if blame is not None and blame["kind"] in EXONERATED:
            return "advised", f"{blame['why']}. {INSTEAD[blame['kind']]}"
        now = self.journal.clock()
        times = [each["time"] for each in entries if each["outcome"] in TRIED and each.get("move") is not None]
        quiet = self.policy.settle_minutes * 60
        if times and now - times[-1] < quiet:
            return (
                "settling",
                f"the last rollback was tried {now - times[-1]:.0f} s ago; the next may come after {quiet:.0f} s",
            )
        spent = sum(now - each < self.policy.per_hours * 3600 for each in times)
        if spent >= self.policy.budget:
            return (
                "spent",
                f"{spent} rollbacks tried within {self.policy.per_hours:g} h are all that may be: a person decides",
            )
        return None

    def _done(self, move: Move, alarm: Alarm, by: str, told: dict[str, Any] | None) -> Action:
        verdict = None if told is None else told["verdict"]
        self._write(Action(alarm.id, "begun", move.what, move, verdict), alarm, by, told)
        try:
            action = Action(alarm.id, "done", self.target.move(move, alarm), move, verdict)
        except Exception as error:  # whatever it is, it must be written down: what is only begun is begun again
            if not isinstance(error, SlimlineError):
                log.exception("the target %s broke: please report this", self.target.name)
            action = Action(alarm.id, "failed", _why(error), move, verdict)
        return self._write(action, alarm, by, told)

    def _recovered(self, *, dry_run: bool) -> list[dict[str, Any]]:
        """Return the journal, after what was begun and never ended is settled."""
        entries = self.journal.entries()
        if dry_run or not entries or entries[-1]["outcome"] != "begun":  # callers wait for each other: only the last
            return entries
        begun = entries[-1]
        outcome, why = {
            True: ("done", "found done"),
            False: ("interrupted", "it didn't come to pass"),
            None: ("unknown", "nobody can say whether it came to pass"),
        }[self.target.done(Move(**begun["move"]))]
        told = begun | {"outcome": outcome, "why": f"{begun['why']}; its doer was killed, {why}"}
        return [*entries, self.journal.append({key: value for key, value in told.items() if key != "time"})]

    def _blamed(self, alarm: Alarm) -> dict[str, Any] | None:
        if self._explain is None:
            return None
        try:
            return _told(self._explain(alarm))
        except SlimlineError:
            return None  # an alarm that can't be explained is one all the same

    def _noted(
        self,
        last: dict[str, Any] | None,
        action: Action,
        alarm: Alarm,
        by: str,
        told: dict[str, Any] | None,
        *,
        dry_run: bool = False,
    ) -> Action:
        """Write an outcome, unless it and its verdict are what was written of the alarm last."""
        if dry_run or (last is not None and _same(last, action.outcome, told)):
            return action
        return self._write(action, alarm, by, told)

    def _write(self, action: Action, alarm: Alarm, by: str, told: dict[str, Any] | None) -> Action:
        self.journal.append(action.as_dict() | {"by": by, "evidence": alarm.as_dict(), "blame": told})
        return action


def _same(last: dict[str, Any], outcome: str, told: dict[str, Any] | None) -> bool:
    before = last.get("blame")
    verdicts = [None if each is None else each["verdict"] for each in (before, told)]
    return bool(last["outcome"] == outcome and verdicts[0] == verdicts[1])


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, SlimlineError) else f"{type(error).__name__}: {error}"


def _unknown(entries: list[dict[str, Any]], revision: str) -> dict[str, Any] | None:
    """Return what was last done about a release where nobody knows how it ended, and nobody decided since."""
    last = next(
        (
            each
            for each in reversed(entries)
            if each["evidence"]["standing"]["revision"] == revision
            and (each["outcome"] == "forgiven" or (each["outcome"] in TRIED and each.get("move") is not None))
        ),
        None,
    )
    return last if last is not None and last["outcome"] == "unknown" else None


def _told(blame: Blame | None) -> dict[str, Any] | None:
    return None if blame is None else {"verdict": blame.verdict, "kind": blame.kind, "why": blame.why}


def _regressed(entries: list[dict[str, Any]]) -> set[str]:
    """Return the revisions that alarms were raised about, less those that a verdict cleared or a person forgave."""
    found: set[str] = set()
    for each in entries:
        revision = each["evidence"]["standing"]["revision"]
        if each["outcome"] == "forgiven":
            found.discard(revision)
        elif each["outcome"] not in {"advised", "moot"}:
            found.add(revision)
    return found


def on(policy: Policy, deployment: Path | None) -> Policy:
    """Return the policy; a target ``deployment`` without keys is the folder ``deployment``, where there is one."""
    if policy.target != Configured(name="deployment") or deployment is None:
        return policy
    target = Configured.model_validate({"name": "deployment", "path": str(deployment)})
    return policy.model_copy(update={"target": target})


def _action(entry: dict[str, Any]) -> Action:
    move = None if entry.get("move") is None else Move(**entry["move"])
    return Action(entry["alarm"], entry["outcome"], entry["why"], move, entry.get("verdict"))


def alarm_of(entry: dict[str, Any]) -> Alarm:
    """Return the alarm that a journal entry is about. Raises UndoError when it isn't one."""
    try:
        return Alarm.from_dict(entry["evidence"])
    except (KeyError, TypeError, IndexError) as error:
        raise UndoError(f"the journal's entry of {entry.get('time')} holds no alarm ({error})") from error
