"""Bounds of the latency histograms: the endpoint counts in them, alert rules read them."""

from __future__ import annotations

SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def bounds(objective: float | None = None) -> tuple[float, ...]:
    """Return the bounds that a part of a request is counted in: SECONDS, and its objective, which rules count at."""
    return SECONDS if objective is None else tuple(sorted({*SECONDS, objective}))
