"""An alarm: a signal that regressed, as it is logged, explained and acted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from slimline.monitor.standing import Standing, State


@dataclass(frozen=True)
class Alarm:
    """A change to ``regressed``. ``id`` stays the same however often it is told: signal, revision, variant, since."""

    id: str
    time: float
    standing: Standing

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return asdict(self) | {"standing": self.standing.as_dict()}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """Return the alarm that ``as_dict`` told of. Raises KeyError, TypeError or IndexError where it is none."""
        standing = dict(told["standing"])
        standing["state"] = State[standing["state"].upper()]
        if standing.get("interval") is not None:
            standing["interval"] = (standing["interval"][0], standing["interval"][1])
        return cls(told["id"], told["time"], Standing(**standing))
