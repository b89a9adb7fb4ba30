"""The monitor's loop: follow the store, let signals decide, raise alarms once, show it all, remember it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from slimline.errors import EventError, SlimlineError
from slimline.monitor.alarm_log import DETAIL, AlarmLog, Key
from slimline.monitor.follower import Follower
from slimline.monitor.history import History
from slimline.monitor.metrics import OWN, Exporter, Shown, of_signals
from slimline.monitor.responding import ENDED, Case, Responder
from slimline.monitor.scraping import Scraper
from slimline.monitor.standing import Standing

CHECKPOINT_SECONDS = 10.0
LONGEST_PAUSE = 30.0
JUMP = 60.0
log = logging.getLogger(__name__)


class Clock:
    """Unix time, and whether it jumped against the monotonic clock, which is said once."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._offset = wall() - monotonic()

    def now(self) -> float:
        """Return Unix time."""
        now = self._wall()
        jump = now - self._monotonic() - self._offset
        if abs(jump) > JUMP:
            log.warning("the clock jumped by %+.0f s; what was measured in time begins anew", jump)
        self._offset += jump
        return now


class Process:
    """Everything but the reading and the deciding. ``interval`` is the pause in seconds when nothing waits."""

    def __init__(
        self,
        follower: Follower,
        folder: Path,
        *,
        responder: Responder | None = None,
        scrapers: Sequence[Scraper] = (),
        interval: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self.follower, self.interval = follower, interval
        self._responder, self._scrapers = responder, scrapers
        self.alarms = AlarmLog(folder)
        self.history = History(folder)
        self.exporter = Exporter()
        self.standings: list[dict[str, Any]] = []
        self._clock = clock or Clock()
        self._saved = float("-inf")
        self._is_away = False
        self._is_behind = True
        self._is_mute = False
        self._polled = 0.0
        self._lag = 0.0
        self._over = threading.Event()

    def stop(self) -> None:
        """End ``run`` after the step it is in."""
        self._over.set()

    def run(self) -> None:
        """Follow the store until ``stop``."""
        pause = self.interval
        while not self._over.is_set():
            more = self.poll()
            pause = min(pause * 2, LONGEST_PAUSE) if self._is_away else self.interval
            if not more:
                self._over.wait(pause)
        self.follower.save()
        if self._responder is not None:
            self._responder.close()

    def poll(self) -> bool:
        """Take one page of events and everything that follows from it; return whether more wait."""
        now = self._clock.now()
        more = self._step(now)
        self._is_behind = more or self._is_away
        if not self._is_away:
            moment = self.follower.newest if more else now  # while it catches up, time is that of the events
            self._lag = max(0.0, now - self.follower.newest) if more else 0.0
            self._polled = now
            for scraper in self._scrapers:
                for counted in scraper.take():
                    self.follower.counted(counted, now)
            self.follower.each(lambda watch: watch.tick(moment))
        try:
            self._settle(now)
            if time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
                self._saved = time.monotonic()
                self.follower.save()
                self._is_mute = False  # not before: most steps write nothing
        except (OSError, SlimlineError) as error:  # a full disk, say: no alarm is acted on that isn't written down
            if not self._is_mute:
                log.error("%s; alarms and the checkpoint wait for it", error)  # noqa: TRY400
            self._is_mute = True
        return more

    def _step(self, now: float) -> bool:
        try:
            if self._is_away:
                self.follower.check()
            more = self.follower.step(now)
        except EventError as error:
            if not self._is_away:
                log.warning("%s; trying again", error)
            self._is_away = True
            return False
        if self._is_away:
            log.info("event store %s: back", self.follower.store.database.name)
        self._is_away = False
        return more

    def _settle(self, now: float) -> None:
        told = {watch.watched.own: watch.standings() for watch in self.follower.active()}
        try:
            self._decide(told, now)
        finally:
            self.exporter.put(self._shown(told))
            self.standings = self.follower.as_dict()
        if not self._is_away and self.history.due(now):
            for own, standings in told.items():
                watch = self.follower.watches[own]
                self.history.append(now, own, watch.rows, standings, watch.samples())

    def _decide(self, told: dict[tuple[str, str], list[Standing]], now: float) -> None:
        holding: dict[Key, Standing] = {
            (each.signal, each.revision, each.variant): each
            for standings in told.values()
            for each in standings
            if DETAIL not in each.signal
        }
        for alarm in self.alarms.settle(holding, now, None if self._is_behind else self._why_over):
            log.warning("alarm: %s of %s: %s", alarm.standing.signal, alarm.standing.revision, alarm.standing.message)
        self._respond(told, now)

    def _why_over(self, key: Key) -> str | None:
        """Return why an alarm is over whose signal says nothing; None: it may still hold."""
        signal, *own = key
        watch = next((each for each in self.follower.active() if each.watched.own == tuple(own)), None)
        if watch is None:
            return "it answers nobody any more"
        if watch.watched.release is None or signal in {*watch.failed, *(each.name for each in watch.signals)}:
            return None
        return "its signal isn't watched any more"

    def _respond(self, told: dict[tuple[str, str], list[Standing]], now: float) -> None:
        if self._responder is None:
            return
        for answer in self._responder.answers():
            if self.alarms.answered(answer.alarm, answer.document, now):
                log.warning("alarm %s: %s", answer.alarm.id, answer)
        holding = {alarm.id: alarm for alarm in self.alarms.open.values()}
        regressed = frozenset(alarm.standing.revision for alarm in holding.values())
        self._responder.forget(holding)
        for alarm in holding.values():
            if self.alarms.answers.get(alarm.id, {}).get("undo", {}).get("outcome") in ENDED:
                continue
            own = (alarm.standing.revision, alarm.standing.variant)
            if own in told:
                watched = self.follower.watches[own].watched
                self._responder.submit(Case(alarm, watched, tuple(told[own]), regressed))

    def _shown(self, told: dict[tuple[str, str], list[Standing]]) -> Iterator[Shown]:
        for own, standings in told.items():
            watch = self.follower.watches[own]
            yield from of_signals(own, standings, watch.samples())
            names = dict(zip(OWN, own, strict=True))
            for signal in watch.failed:
                yield Shown("slimline_signal_failed", 1.0, {"signal": signal} | names)
            yield Shown("slimline_watched_rows_total", watch.rows, names)
            yield Shown("slimline_watched_labels_total", watch.labels, names)
        for key, alarm in self.alarms.open.items():
            labels = dict(zip(("signal", *OWN), key, strict=True))
            yield Shown("slimline_alarm_open", 1.0, labels)
            if blame := self.alarms.answers.get(alarm.id, {}).get("blame"):
                found = {"verdict": blame["kind"], "stage": blame["stage"] or ""}
                yield Shown("slimline_blame_info", 1.0, labels | found)
        yield Shown("slimline_monitor_events_total", self.follower.events, {})
        yield Shown("slimline_monitor_lag_seconds", self._lag, {})
        yield Shown("slimline_monitor_last_poll_seconds", self._polled, {})
        yield Shown("slimline_monitor_store_up", float(not self._is_away), {})
        yield Shown("slimline_monitor_state_up", float(not self._is_mute), {})
