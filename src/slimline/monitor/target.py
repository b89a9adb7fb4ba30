"""The contract of a target: it says what it would do about an alarm, does it once, and knows whether it was done."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from slimline.monitor.alarm import Alarm


@dataclass(frozen=True)
class Move:
    """One way to take a release out of traffic.

    ``kind``: shift (the variant's weight becomes 0), rollback (an earlier release becomes current), or ask (somebody
    else is told to). ``revision`` and ``variant`` are what is left, ``to`` the revision or variants that answer
    instead, where that is known. ``what`` says it in one line.
    """

    kind: str
    what: str
    revision: str
    variant: str
    to: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return asdict(self)


class Target(Protocol):
    """A plug-in: a frozen dataclass whose fields are its keys in params.yaml's ``monitor.undo.target``."""

    name: ClassVar[str]

    def plan(self, alarm: Alarm, avoid: Collection[str]) -> Move | None:
        """Return what would be done; None when the alarm's release answers nobody any more.

        ``avoid`` are revisions that regressed themselves, to none of which may be gone back. Raises UndoError when
        nothing can be done. Changes nothing.
        """

    def move(self, move: Move, alarm: Alarm) -> str:
        """Do it and return in one line what was done; doing it again changes nothing. Raises SlimlineError."""

    def done(self, move: Move) -> bool | None:
        """Return whether a move whose doer was killed has come to pass; None: that can't be known."""
