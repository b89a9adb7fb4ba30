"""What ``make bench`` aims at on a workload, and whether it was reached: pure arithmetic over what was measured.

A goal is met or missed by the measured value; its interval stands beside it. Where no peer is left to compare with, a
goal is met.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

NEAR = 0.01  # of the teacher's score: a peer within a point
AHEAD = 2.0  # times as fast as the best of them
NEAREST = 4.0  # times as fast as a peer, the most at which it stands beside ours row by row
DROP = 1.5  # points, the most that the upper bound of a drop may be
FAST = {"topics": 8.0, "garments": 6.0}  # times as fast as fp32 in ONNX Runtime
SMALL = {"topics": 10.0, "garments": 8.0}  # times smaller than that
OURS = "slimline"
BOTH = " + "  # between the tools that made a variant together

Rows = Mapping[str, Mapping[str, Any]]
Ratios = Mapping[str, Mapping[str, tuple[float, list[float]]]]


@dataclass(frozen=True)
class Found:
    """A measured value against its bound; ``over`` names the peer, ``missed_by`` is in the goal's unit, 0 if met."""

    value: float | None
    ci: list[float] | None
    over: str | None
    met: bool
    missed_by: float


@dataclass(frozen=True)
class Goal:
    """``places`` are {"bN/tM": Found}, or {"": Found} where it doesn't hang on batch and threads."""

    aim: str
    unit: str
    bound: float
    places: dict[str, Found]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data, with ``met`` for all places together."""
        return {**asdict(self), "met": all(each.met for each in self.places.values())}


def goals(name: str, rows: Rows, base: str, ours: str, ahead: Ratios, primary: str) -> Iterator[Goal]:
    """Yield the goals of a workload: how ``ours`` does beside the teacher ``base`` and its peers.

    ``rows`` are {variant: what was measured}, ``ahead`` {peer: {place: (its time over ours, [low, high])}}.
    """
    own, peers = rows[ours], _peers(rows)
    alike = _alike(rows, ours, primary)
    near = [each for each, row in peers.items() if BOTH not in row["tool"] and row[f"{primary}_drop"] <= NEAR]
    places = list(own["latency_ms"])

    def over(names: list[str], bound: float) -> dict[str, Found]:
        return {place: _fastest(ahead, names, place, bound) for place in places}

    yield Goal("no peer within overlapping accuracy intervals is as fast", "×", 1.0, over(alike, 1.0))
    yield Goal(f"≥ {AHEAD:g}× the best single tool within a point of the teacher", "×", AHEAD, over(near, AHEAD))
    if name in FAST:
        yield Goal(f"≥ {FAST[name]:g}× {base}", "×", FAST[name], over([base], FAST[name]))
    if name in SMALL:
        ratio, bound = rows[base]["bytes"] / own["bytes"], SMALL[name]
        small = Found(ratio, None, base, ratio >= bound, max(0.0, bound - ratio))
        yield Goal(f"≥ {bound:g}× smaller than {base}", "×", bound, {"": small})
    for metric in dict.fromkeys([primary, "macro_f1"]):
        if metric in own["drops"]:
            drop, (low, high) = own["drops"][metric]["drop"], own["drops"][metric]["ci"]
            points = [100 * each for each in (low, high)]
            found = Found(100 * drop, points, None, points[1] <= DROP, max(0.0, points[1] - DROP))
            yield Goal(f"upper bound of the drop of {metric} ≤ {DROP:g} points", "points", DROP, {"": found})


def nearest(rows: Rows, ours: str, ahead: Ratios, primary: str) -> list[str]:
    """Return the peers whose interval overlaps that of ``ours`` and that somewhere come within NEAREST of its speed."""
    return [each for each in _alike(rows, ours, primary) if min(ratio for ratio, _ in ahead[each].values()) <= NEAREST]


def _peers(rows: Rows) -> Rows:
    return {each: row for each, row in rows.items() if row["tool"] != OURS}


def _alike(rows: Rows, ours: str, primary: str) -> list[str]:
    own = rows[ours][f"{primary}_ci"]
    return [each for each, row in _peers(rows).items() if _overlap(row[f"{primary}_ci"], own)]


def _overlap(a: list[float], b: list[float]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


def _fastest(ahead: Ratios, names: list[str], place: str, bound: float) -> Found:
    """Return how many times as fast ours is as the fastest of ``names``."""
    if not names:
        return Found(None, None, None, met=True, missed_by=0.0)
    peer = min(names, key=lambda each: ahead[each][place][0])
    ratio, interval = ahead[peer][place]
    return Found(ratio, interval, peer, ratio >= bound, max(0.0, bound - ratio))
