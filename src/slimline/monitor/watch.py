"""One revision as one variant: its signals, fed and asked together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from slimline.events import Answers, Truths
from slimline.monitor import feed, signals
from slimline.monitor.errors import Errors
from slimline.monitor.scraping import Counted
from slimline.monitor.signal import Sample, Signal
from slimline.monitor.standing import Standing
from slimline.monitor.watched import Watched

log = logging.getLogger(__name__)


class Watch:
    """The signals of ``watched``, and what was counted: rows, labels, the time (Unix) of the first and last answer.

    A signal that fails is said once and left out from then on, as one of ``failed``; the others go on.
    """

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.signals: list[Signal] = signals.make(watched)
        self.failed: list[str] = []
        self.rows = 0
        self.labels = 0
        self.first: float | None = None
        self.last: float | None = None
        self._index = {label: number for number, label in enumerate(watched.labels)}

    def predicted(self, answers: Answers) -> None:
        """Take answers."""
        self.rows += len(answers.outputs)
        newest = float(answers.time.max())
        self.first = float(answers.time.min()) if self.first is None else self.first
        self.last = newest if self.last is None else max(self.last, newest)
        batch = feed.predicted(answers, self._index)
        self._each(lambda signal: signal.predicted(batch))

    def labelled(self, truths: Truths) -> None:
        """Take truths."""
        self.labels += len(truths.outputs)
        batch = feed.labelled(truths, self._index)
        self._each(lambda signal: signal.labelled(batch))

    def counted(self, requests: Counted) -> None:
        """Take what the endpoint counted, which is a sign of life too."""
        self.last = requests.time if self.last is None else max(self.last, requests.time)
        for signal in self.signals:
            if isinstance(signal, Errors):
                signal.counted(*requests[1:])

    def tick(self, now: float) -> None:
        """Take note of the time."""
        self._each(lambda signal: signal.tick(now))

    def standings(self) -> list[Standing]:
        """Return where every signal stands."""
        found: list[Standing] = []
        self._each(lambda signal: found.extend(signal.standings()))
        return found

    def samples(self) -> list[Sample]:
        """Return the values of every signal's gauges."""
        found: list[Sample] = []
        self._each(lambda signal: found.extend(signal.samples()))
        return found

    def dump(self) -> dict[str, Any]:
        """Return all that is remembered, as plain JSON data."""
        return {
            "revision": self.watched.revision,
            "variant": self.watched.variant,
            "shadow": self.watched.shadow,
            "counts": [self.rows, self.labels, self.first, self.last],
            "signals": {signal.name: signal.dump() for signal in self.signals},
        }

    def restore(self, saved: Mapping[str, Any]) -> list[str]:
        """Go on from what ``dump`` returned; return the signals that have to begin anew."""
        self.rows, self.labels, self.first, self.last = saved["counts"]
        anew = []
        made: Iterable[Signal] = signals.make(self.watched)  # for those that fail halfway through
        fresh = {signal.name: signal for signal in made}
        for place, signal in enumerate(self.signals):
            try:
                signal.restore(saved["signals"][signal.name])
            except (KeyError, TypeError, ValueError, IndexError):  # other params, or another version, dumped it
                self.signals[place] = fresh[signal.name]
                anew.append(signal.name)
        return anew

    def _each(self, act: Callable[[Signal], object]) -> None:
        for signal in list(self.signals):
            try:
                act(signal)
            except Exception:  # a mistake in one signal, whatever it raises, must not blind the others
                self.signals.remove(signal)
                self.failed.append(signal.name)
                log.exception(
                    "the signal %s of %s failed and is left out: please report this", signal.name, self.watched.own
                )
