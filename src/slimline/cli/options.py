"""Options that several commands have, spelled alike."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from slimline.errors import EventError


def _store() -> str:
    from slimline.events import DEFAULT_URL

    return DEFAULT_URL


Store = Annotated[
    str,
    typer.Option(
        envvar="SLIMLINE_EVENT_STORE",
        default_factory=_store,
        show_default="events.db in this folder",
        help="sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE",
    ),
]


def moment(option: str, text: str | None) -> float | None:
    """Return Unix time for a date, or for so long ago: 90s, 15m, 24h, 7d."""
    if text is None:
        return None
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
        return time.time() - float(ago[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[ago[2]]
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise EventError(f"{option}: {text!r} is no time; write 2026-01-31T12:00+01:00, or 90m, 24h") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
