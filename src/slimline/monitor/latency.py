"""How many requests take longer than their objective, by part: decode, queue, predict, encode or total."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from slimline.monitor.burn import MINUTES, Burn
from slimline.monitor.sequential import interval
from slimline.monitor.signal import Labelled, Predicted, Sample
from slimline.monitor.standing import Standing
from slimline.monitor.watched import Watched
from slimline.monitoring import objectives

CONFIDENCE = 0.95
RECENT = 500
QUANTILES = (0.5, 0.95, 0.99)


class Latency:
    """A test for each part that has an objective; it stands where its worst part does."""

    name: ClassVar[str] = "latency"

    def __init__(self, own: tuple[str, str], limits: Mapping[str, float], share: float, run_length: float) -> None:
        self.own, self.limits, self.share = own, limits, share
        self.parts = {part: Burn(1.0 - share, run_length) for part in limits}
        self._last = np.zeros(0)

    def predicted(self, batch: Predicted) -> None:
        """Compare each request with the objectives."""
        whole = batch.latency.get("total", np.zeros(0))[-RECENT:]
        self._last = np.concatenate([self._last, whole[np.isfinite(whole)]])[-RECENT:]
        for part, burn in self.parts.items():
            seconds = batch.latency.get(part)
            if seconds is None:
                continue
            known = np.isfinite(seconds)
            slow = (seconds[known] > self.limits[part]).astype(np.float64)
            burn.feed(batch.time[known], np.ones(len(slow)), slow)

    def labelled(self, batch: Labelled) -> None:
        """Labels say nothing of latency."""

    def tick(self, now: float) -> None:
        """End blocks and windows."""
        for burn in self.parts.values():
            burn.tick(now)

    def standings(self) -> list[Standing]:
        """Return where the worst part stands, as ``latency``, then each part."""
        parts = [self._standing(part, burn) for part, burn in self.parts.items()]
        worst = max(parts, key=lambda each: (each.state, each.evidence or 0.0))
        whole = replace(worst, signal=self.name)
        return [whole, *(parts if len(parts) > 1 else [])]

    def _standing(self, part: str, burn: Burn) -> Standing:
        bad, requests = burn.ratio("5m")
        value = bad / requests if requests else None
        shown = "no requests" if value is None else f"{value:.2%} of {requests:.0f} requests"
        said = (
            f"{part}: {shown} in 5 minutes took over {self.limits[part] * 1e3:.3g} ms, {1 - self.share:.2%} may; "
            f"e-value {burn.evidence:.3g} of {burn.detector.threshold:.3g}"
        )
        return Standing(
            f"{self.name}/{part}", *self.own, burn.state, said, burn.since, burn.count, value,
            interval(bad, int(requests), CONFIDENCE) if requests else None, 1 - self.share, burn.evidence,
            burn.detector.threshold,
        )  # fmt: skip

    def samples(self) -> Iterable[Sample]:
        """Return the last requests' quantiles, and each part's objective, share beyond it and burn rates."""
        if len(self._last):
            for quantile, value in zip(QUANTILES, np.quantile(self._last, QUANTILES), strict=True):
                yield Sample("slimline_latency_seconds", float(value), {"quantile": str(quantile)})
        for part, burn in self.parts.items():
            yield Sample("slimline_latency_objective_seconds", self.limits[part], {"part": part})
            for window in MINUTES:
                bad, requests = burn.ratio(window)
                if requests:
                    yield Sample("slimline_slow_ratio", bad / requests, {"part": part, "window": window})
                    yield Sample("slimline_burn_rate", burn.rate(window), {"part": part, "window": window})

    def dump(self) -> dict[str, Any]:
        """Return its state as plain JSON data."""
        return {"parts": {part: burn.dump() for part, burn in self.parts.items()}, "last": self._last.tolist()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``dump`` returned; a part that is new begins."""
        self._last = np.array(saved["last"], np.float64)
        for part, burn in self.parts.items():
            if part in saved["parts"]:
                burn.restore(saved["parts"][part])


def latency(watched: Watched) -> Latency | None:
    """Needs an objective: params.yaml's ``latency_ms``, or the release's benchmark."""
    measured = watched.objectives.get("latency_ms") or {}
    if not measured and not watched.params.latency_ms:
        return None
    limits = objectives.latency(watched.params, measured)
    return Latency(watched.own, limits, watched.params.latency_share, watched.params.run_length)
