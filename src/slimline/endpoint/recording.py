"""Hands predictions to the event store, off the request's path."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimline.endpoint.settings import Settings

if TYPE_CHECKING:
    from slimline.endpoint.loaded import Loaded
    from slimline.predictor import Arrays


class Recorder:
    """Writes what was answered, when an event store is set."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._writer: Any = None

    def open(self, dropped: Callable[[str, int], None]) -> None:
        """Start the writer; ``dropped(reason, count)`` hears of events that can't be stored."""

    def record(
        self, request_id: str, live: Loaded, labels: list[str] | None, outputs: NDArray[np.float32],
        latency: dict[str, float], inputs: Arrays, *, shadow: bool,
    ) -> None:  # fmt: skip
        """Put one prediction into the writer's queue; never waits."""

    def close(self) -> None:
        """Write out what is queued."""
