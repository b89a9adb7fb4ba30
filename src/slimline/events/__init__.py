"""The event store, shared by endpoint and monitor: predictions, and the labels that come later. Needs the extra serve.

``EventStore`` reads and writes; ``EventWriter`` writes behind the requests' back; ``Sampler`` asks the whole chain
about a share of the rows.
"""

from __future__ import annotations

from slimline.errors import EventError

try:
    import orjson as _orjson  # noqa: F401
    import sqlalchemy as _sqlalchemy  # noqa: F401
except ModuleNotFoundError as error:
    raise EventError(f"events: {error.name} isn't installed: pip install 'slimline[serve]'") from error

from slimline.events.following import Answers, News, Position, Truths
from slimline.events.ids import new_id
from slimline.events.records import Label, Labelled, Outcome, Prediction
from slimline.events.sampler import Sampler
from slimline.events.store import DEFAULT_URL, EventStore
from slimline.events.writer import REASONS, EventWriter

__all__ = [
    "DEFAULT_URL",
    "REASONS",
    "Answers",
    "EventStore",
    "EventWriter",
    "Label",
    "Labelled",
    "News",
    "Outcome",
    "Position",
    "Prediction",
    "Sampler",
    "Truths",
    "new_id",
]
