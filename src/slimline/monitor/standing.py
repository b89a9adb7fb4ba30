"""What the monitor says about one signal of one release: ok, watch or regressed, and on what evidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any


class State(IntEnum):
    """The value of ``slimline_regression_state``."""

    OK = 0
    WATCH = 1
    REGRESSED = 2


@dataclass(frozen=True)
class Standing:
    """Where a signal stands.

    ``value`` is the estimate now and ``interval`` its confidence interval, both in the signal's own unit, judged
    against ``limit``. ``evidence`` is the detector's e-value, which pages at ``threshold``; a signal without a
    sequential test leaves both None. ``count`` rows or requests were seen, the state holds since ``since`` (Unix
    seconds), and ``message`` says all of it in one line for people.
    """

    signal: str
    revision: str
    variant: str
    state: State
    message: str
    since: float
    count: int
    value: float | None = None
    interval: tuple[float, float] | None = None
    limit: float | None = None
    evidence: float | None = None
    threshold: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON data; the state by its name."""
        return asdict(self) | {"state": self.state.name.lower()}
