"""Every signal that the monitor watches, in one place.

A factory takes what is watched and returns its signal, or None where the signal has nothing to go by: no release was
found, the task has no labels, a limit isn't set.
"""

from __future__ import annotations

from collections.abc import Callable

from slimline.monitor import quality
from slimline.monitor.coverage import Coverage
from slimline.monitor.errors import Errors
from slimline.monitor.latency import latency
from slimline.monitor.signal import Signal
from slimline.monitor.traffic import Traffic
from slimline.monitor.watched import Watched

Make = Callable[[Watched], Signal | None]

SIGNALS: tuple[Make, ...] = (
    Traffic, latency, Errors, Coverage, quality.accuracy, quality.agreement, quality.estimate, quality.drift,
)  # fmt: skip


def make(watched: Watched) -> list[Signal]:
    """Return the signals of one revision and variant."""
    return [signal for each in SIGNALS if (signal := each(watched)) is not None]
