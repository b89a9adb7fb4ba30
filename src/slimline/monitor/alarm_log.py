"""``alarms.jsonl``: every alarm once, on the disk before anything is done about it, and what came of it.

::

    {"event": "raised",   "id", "time", "standing": {…}}
    {"event": "answered", "id", "time", "blame": {…}, "undo": {…}}     again whenever the outcome changes
    {"event": "resolved", "id", "time", "why"}

Which alarms are open is read from here, not from the checkpoint: a monitor that was killed between the two reads some
events again and comes to the same alarm, which is open already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slimline import json_lines
from slimline.monitor.alarm import Alarm
from slimline.monitor.standing import Standing, State

FILE = "alarms.jsonl"
DETAIL = "/"  # accuracy/shirt is a part of accuracy, which alarms for it
Key = tuple[str, str, str]  # signal, revision, variant


class AlarmLog:
    """The log in ``folder``. ``open`` {(signal, revision, variant): the alarm that holds}; ``answers`` {id: what came
    of it}."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.open: dict[Key, Alarm] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        for entry in entries(folder):
            self._take(entry)

    def settle(
        self, standings: Mapping[Key, Standing], now: float, over: Callable[[Key], str | None] | None
    ) -> list[Alarm]:
        """Raise an alarm for each standing that has become ``regressed``, resolve those that no longer are.

        ``over`` says why an alarm without a standing is over; None: it isn't, nobody can say where its signal stands.
        Without ``over`` none is resolved: the standings are of the past. Returns the new alarms.
        """
        new = []
        for key, standing in standings.items():
            if standing.state is State.REGRESSED and key not in self.open:
                new.append(Alarm(_id(standing), now, standing))
                self._write({"event": "raised"} | new[-1].as_dict())
        if over is None:
            return new
        for key, alarm in list(self.open.items()):
            found = standings.get(key)
            if found is not None and found.state is State.REGRESSED:
                continue
            why = over(key) if found is None else found.message
            if why is not None:
                self._write({"event": "resolved", "id": alarm.id, "time": now, "why": why})
        return new

    def answered(self, alarm: Alarm, answer: dict[str, Any], now: float) -> bool:
        """Note what came of an alarm; return False where that is what was noted last, or the alarm is over."""
        if self.answers.get(alarm.id) == answer or all(each.id != alarm.id for each in self.open.values()):
            return False
        self._write({"event": "answered", "id": alarm.id, "time": now} | answer)
        return True

    def _write(self, entry: dict[str, Any]) -> None:
        json_lines.append(self.path, entry)
        self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        if entry["event"] == "raised":
            alarm = Alarm.from_dict(entry)
            self.open[alarm.standing.signal, alarm.standing.revision, alarm.standing.variant] = alarm
        elif entry["event"] == "answered":
            self.answers[entry["id"]] = {key: entry[key] for key in ("blame", "undo") if key in entry}
        elif entry["event"] == "resolved":
            self.answers.pop(entry["id"], None)
            self.open = {key: alarm for key, alarm in self.open.items() if alarm.id != entry["id"]}


def entries(folder: Path) -> list[dict[str, Any]]:
    """Return every entry, oldest first; a torn line is left out."""
    return [each for each in json_lines.read(folder / FILE) if "event" in each]


def _id(standing: Standing) -> str:
    return f"{standing.signal}:{standing.revision}:{standing.variant}:{standing.since:.0f}"
