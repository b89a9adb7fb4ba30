"""How many requests are answered with 5xx, as the endpoint counts them: the event store holds answers alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from slimline.monitor.burn import Burn
from slimline.monitor.sequential import interval
from slimline.monitor.signal import Labelled, Predicted, Sample
from slimline.monitor.standing import Standing
from slimline.monitor.watched import Watched

CONFIDENCE = 0.95


class Errors:
    """Fed by ``counted``, from the endpoint's /metrics; stands nowhere until then."""

    name: ClassVar[str] = "errors"

    def __init__(self, watched: Watched) -> None:
        self.own = watched.own
        self.limit = watched.params.error_share
        self.burn = Burn(self.limit, watched.params.run_length)
        self.dropped = 0

    def counted(self, time: float, requests: int, failed: int, dropped: int) -> None:
        """Take what was counted since the last call: requests, those that failed, and events that were dropped."""
        self.dropped += dropped
        if requests:
            self.burn.feed(np.array([time]), np.array([float(requests)]), np.array([float(failed)]))

    def predicted(self, batch: Predicted) -> None:
        """Answers are no errors."""

    def labelled(self, batch: Labelled) -> None:
        """Nor are labels."""

    def tick(self, now: float) -> None:
        """End blocks and windows."""
        self.burn.tick(now)

    def standings(self) -> list[Standing]:
        """Return the one standing."""
        burn = self.burn
        if not burn.count:
            return []
        bad, requests = burn.ratio("5m")
        said = (
            f"{bad:.0f} of {requests:.0f} requests in 5 minutes failed, {self.limit:.2%} may; {self.dropped} events "
            f"dropped so far; e-value {burn.evidence:.3g} of {burn.detector.threshold:.3g}"
        )
        return [
            Standing(
                self.name, *self.own, burn.state, said, burn.since, burn.count, bad / requests if requests else None,
                interval(bad, int(requests), CONFIDENCE) if requests else None, self.limit, burn.evidence,
                burn.detector.threshold,
            )
        ]  # fmt: skip

    def samples(self) -> Iterable[Sample]:
        """Return the share of the last five minutes."""
        bad, requests = self.burn.ratio("5m")
        if requests:
            yield Sample("slimline_error_ratio", bad / requests)

    def dump(self) -> dict[str, Any]:
        """Return its state as plain JSON data."""
        return {"burn": self.burn.dump(), "dropped": self.dropped}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``dump`` returned."""
        self.burn.restore(saved["burn"])
        self.dropped = int(saved["dropped"])
