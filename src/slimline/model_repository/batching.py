"""Dynamic batching from what the release's benchmark measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Batching:
    """``largest``: rows a request may have. ``preferred``: sizes worth waiting for. ``delay``: so long, in µs."""

    largest: int
    preferred: tuple[int, ...]
    delay: int


def choose(latency_ms: Mapping[str, Mapping[str, float]]) -> Batching:
    """Return how to batch, from {batch size: {"p50": ms}}.

    With t(b) the time of a batch, a row of it costs t(b)/b. A size is preferred when its rows cost less than those of
    every smaller size. A request that waits alone loses what it waits, so it waits no longer than a row gains by
    being in the best batch: max(0, t(1) − min t(b)/b). A model that gains nothing by batches never waits.
    """
    cost = {size: latency_ms[str(size)]["p50"] / size for size in sorted(map(int, latency_ms))}
    sizes = list(cost)
    preferred = [size for at, size in enumerate(sizes) if at and cost[size] < min(cost[less] for less in sizes[:at])]
    gained = cost[sizes[0]] - min(cost.values())
    return Batching(sizes[-1], tuple(preferred), round(1000 * gained))
