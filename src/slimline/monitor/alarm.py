"""An alarm: a signal that regressed, as it is logged, explained and acted on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from slimline.monitor.standing import Standing


@dataclass(frozen=True)
class Alarm:
    """A change to ``regressed``. ``id`` stays the same however often it is told: signal, revision, variant, since."""

    id: str
    time: float
    standing: Standing

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return asdict(self) | {"standing": self.standing.as_dict()}
