"""Follows the event store: every event once, into the watch of its revision and variant, and into the checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slimline.deployment import short
from slimline.errors import SlimlineError
from slimline.events import EventStore, Position
from slimline.monitor import checkpoint, watched
from slimline.monitor.releases import Releases
from slimline.monitor.scraping import Counted
from slimline.monitor.watch import Watch
from slimline.params import Monitor

PAGE = 5000  # predictions, and labels, taken in one step
MOST = 16  # watches: beyond, the one that answered longest ago is let go
REPLACED = 120.0  # seconds without an answer after which a revision whose variant answers as another is retired
LOOK_AGAIN = 60.0  # seconds until a release that wasn't found is looked for again
log = logging.getLogger(__name__)


class Follower:
    """The position in the store and a watch for each (revision, variant) that answered.

    ``folder`` holds the checkpoint; ``chosen`` stands in for the releases' own section ``monitor``.
    """

    def __init__(self, store: EventStore, releases: Releases, folder: Path, chosen: Monitor | None) -> None:
        self.store, self.releases, self.folder, self.chosen = store, releases, folder, chosen
        self.position = Position()
        self.watches: dict[tuple[str, str], Watch] = {}
        self.events = 0
        self.newest = 0.0
        self._looked: dict[tuple[str, str], float] = {}
        self._restore()

    def step(self, now: float) -> bool:
        """Take the next page of the store; return whether there is more. Raises EventError when the store is away."""
        news = self.store.after(self.position, PAGE)
        for answers in news.answers:
            self._watch(answers.source, now).predicted(answers)
            self.events += len(answers.time)
            self.newest = max(self.newest, float(answers.time[-1]))
        for truths in news.truths:
            self._watch(truths.source, now).labelled(truths)
            self.events += len(truths.time)
        taken = (news.position.prediction - self.position.prediction, news.position.label - self.position.label)
        self.position = news.position
        return max(taken) >= PAGE

    def counted(self, requests: Counted, now: float) -> None:
        """Take what an endpoint counted."""
        if requests.requests:
            self._watch((*requests.own, False), now).counted(requests)

    def check(self) -> None:
        """Begin anew where the store is another one than before: its sequences end before what was read."""
        head = self.store.head()
        if head.prediction < self.position.prediction or head.label < self.position.label:
            log.warning(
                "event store %s was replaced: it ends at %s, and %s was read; reading it from its start",
                self.store.database.name, tuple(head), tuple(self.position),
            )  # fmt: skip
            self.position = Position()

    def each(self, act: Callable[[Watch], object]) -> None:
        """Run ``act`` on every watch."""
        for watch in self.watches.values():
            act(watch)

    def active(self) -> list[Watch]:
        """Return the watches that aren't retired: another revision of their variant answers in their place."""
        newest: dict[str, float] = {}
        for watch in self.watches.values():
            variant = watch.watched.variant
            newest[variant] = max(newest.get(variant, 0.0), watch.last or 0.0)
        return [
            watch
            for watch in self.watches.values()
            if watch.last is not None and newest[watch.watched.variant] - watch.last < REPLACED
        ]

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "position": self.position,
            "events": self.events,
            "newest": self.newest,
            "watches": [watch.dump() for watch in self.watches.values()],
        }
        checkpoint.write(self.folder, state)

    def _restore(self) -> None:
        saved = checkpoint.read(self.folder)
        if saved is None:
            return
        self.position = Position(*saved["position"])
        self.events, self.newest = int(saved["events"]), float(saved["newest"])
        for each in saved["watches"]:
            watch = self._made(each["revision"], each["variant"], shadow=each["shadow"])
            if anew := watch.restore(each):
                log.warning(
                    "%s as %s: %s can't go on from the checkpoint and begin anew: other params or another version",
                    short(each["revision"]), each["variant"], ", ".join(anew),
                )  # fmt: skip
            self.watches[watch.watched.own] = watch

    def _watch(self, source: tuple[str, str, bool], now: float) -> Watch:
        revision, variant, shadow = source
        own = (revision, variant)
        watch = self.watches.get(own)
        if watch is None:
            if len(self.watches) >= MOST:
                oldest = min(self.watches, key=lambda each: self.watches[each].last or 0.0)
                del self.watches[oldest]
                log.info("%s as %s is let go: %d are watched at most", short(oldest[0]), oldest[1], MOST)
            watch = self.watches[own] = self._made(revision, variant, shadow=shadow)
            self._looked[own] = now
        elif watch.watched.release is None and abs(now - self._looked.get(own, 0.0)) > LOOK_AGAIN:
            self._looked[own] = now
            if self.releases.find(revision) is not None:
                log.info("%s as %s: its release is there now; all its signals begin", short(revision), variant)
                watch = self.watches[own] = self._made(revision, variant, shadow=shadow)
        return watch

    def _made(self, revision: str, variant: str, *, shadow: bool) -> Watch:
        release = self.releases.find(revision)
        missing = "no such release in --deployment or --release"
        if release is not None:
            try:
                before = self.releases.incumbent(revision)
                known = watched.read(
                    revision, variant, shadow=shadow, release=release, chosen=self.chosen, incumbent=before
                )
                return Watch(known)
            except SlimlineError as error:
                missing = str(error)
        log.warning("%s as %s: %s; its traffic and coverage alone are watched", short(revision), variant, missing)
        return Watch(watched.read(revision, variant, shadow=shadow, release=None, chosen=self.chosen))

    def as_dict(self) -> list[dict[str, Any]]:
        """Return what is watched and where it stands, as plain JSON data."""
        active = {watch.watched.own for watch in self.active()}
        return [
            {
                "revision": watch.watched.revision,
                "variant": watch.watched.variant,
                "shadow": watch.watched.shadow,
                "retired": watch.watched.own not in active,
                "rows": watch.rows,
                "labels": watch.labels,
                "first": watch.first,
                "last": watch.last,
                "standings": [standing.as_dict() for standing in watch.standings()],
            }
            for watch in self.watches.values()
        ]
