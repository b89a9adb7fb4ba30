"""No traffic: nothing was answered for ``idle_minutes``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from slimline.monitor.signal import Labelled, Predicted, Sample
from slimline.monitor.standing import Standing, State
from slimline.monitor.watched import Watched

STEP = 60.0  # seconds that one tick may add: a clock that jumps ahead is no silence


class Traffic:
    """Adds up the time since the last answer; half of ``idle_minutes`` is ``watch``, all of it ``regressed``."""

    name: ClassVar[str] = "traffic"

    def __init__(self, watched: Watched) -> None:
        self.own = watched.own
        self.limit = watched.params.idle_minutes * 60
        self.count = 0
        self.idle = 0.0
        self.state = State.OK
        self.since = 0.0
        self._ticked: float | None = None

    def predicted(self, batch: Predicted) -> None:
        """Count requests."""
        self.count += len(batch.time)
        self.idle = 0.0
        self._turn(State.OK, float(batch.time[-1]))

    def labelled(self, batch: Labelled) -> None:
        """Labels aren't traffic."""

    def tick(self, now: float) -> None:
        """Add the time since the last tick."""
        if self._ticked is not None:
            self.idle += min(max(now - self._ticked, 0.0), STEP)
        self._ticked = now
        if self.idle >= self.limit / 2:
            self._turn(State.REGRESSED if self.idle >= self.limit else State.WATCH, now)

    def standings(self) -> list[Standing]:
        """Return the one standing."""
        said = f"{self.count} requests so far, none for {self.idle:.0f} s; {self.limit:.0f} s are allowed"
        return [
            Standing(
                self.name, *self.own, self.state, said, self.since, self.count, value=self.idle, limit=self.limit
            )
        ]  # fmt: skip

    def samples(self) -> Iterable[Sample]:
        """Return how long nothing was answered."""
        yield Sample("slimline_idle_seconds", self.idle)

    def _turn(self, state: State, time: float) -> None:
        if state is not self.state or not self.since:
            self.state, self.since = state, time

    def dump(self) -> dict[str, Any]:
        """Return its state as plain JSON data."""
        return {"count": self.count, "idle": self.idle, "state": int(self.state), "since": self.since}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``dump`` returned; the time that the monitor was away isn't counted."""
        self.count, self.idle, self.since = int(saved["count"]), float(saved["idle"]), float(saved["since"])
        self.state = State(saved["state"])
