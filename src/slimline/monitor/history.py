"""``history.jsonl``: where everything stood, once a minute, for the page of a window; bounded.

A line is {"time", "revision", "variant", "rows", "standings": {signal: [state, value, low, high, limit]}, "samples":
{metric: {label values joined by /: value}}}.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from slimline import json_lines, manifest
from slimline.errors import ArtifactError
from slimline.monitor.signal import Sample
from slimline.monitor.standing import Standing

FILE = "history.jsonl"
EVERY = 60.0
MOST = 30_000  # lines: three weeks of one revision; beyond, the older half goes
KEPT = ("slimline_latency_seconds", "slimline_accuracy_estimate_ratio", "slimline_drift_score")
log = logging.getLogger(__name__)


class History:
    """The file in ``folder``; ``every`` is the least time between two lines of one revision and variant."""

    def __init__(self, folder: Path, every: float = EVERY) -> None:
        self.path, self.every = folder / FILE, every
        self._lines = sum(1 for _ in read(folder))
        self._last = float("-inf")

    def due(self, now: float) -> bool:
        """Return whether it is time for the next lines; a clock that was set back begins anew."""
        return not 0 <= now - self._last < self.every

    def append(
        self, now: float, own: tuple[str, str], rows: int, standings: Iterable[Standing], samples: Iterable[Sample]
    ) -> None:
        """Write one line; a disk that is full loses it, which is said."""
        self._last = now
        entry: dict[str, Any] = {"time": round(now, 3), "revision": own[0], "variant": own[1], "rows": rows}
        entry["standings"] = {
            each.signal: [int(each.state), each.value, *(each.interval or (None, None)), each.limit]
            for each in standings
        }
        found: dict[str, dict[str, float]] = {}
        for sample in samples:
            if sample.metric in KEPT:
                found.setdefault(sample.metric, {})["/".join(sample.labels.values())] = sample.value
        entry["samples"] = found
        try:
            json_lines.append(self.path, entry, sync=False)
            self._lines += 1
            if self._lines > MOST:
                lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-MOST // 2 :]
                manifest.write_text(self.path, "".join(lines))
                self._lines = len(lines)
        except (OSError, ArtifactError) as error:
            log.warning("%s: can't be written (%s); a line of it is lost", self.path, error)


def read(folder: Path, since: float = float("-inf"), until: float = float("inf")) -> Iterator[dict[str, Any]]:
    """Yield the lines of a window, oldest first; a torn one is left out."""
    for entry in json_lines.read(folder / FILE):
        if since <= entry.get("time", float("nan")) < until:
            yield entry
