"""What production left behind in a window of time: rows that went through the chain, answers with labels, latencies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from slimline.monitor.blame.chain import UNKNOWN, Chain, Indices, Rows

if TYPE_CHECKING:
    from slimline.events import EventStore, Prediction

MOST = 20_000
SPAN = 60.0
Event = TypeVar("Event")
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Window:
    """``rows`` went through every stage.

    ``answers`` and ``truths`` [labelled rows] are what was served and what was true, sampled or not. ``latency``
    {part: seconds [requests]} and ``batch`` [requests] how many rows each held.
    """

    since: float | None
    until: float | None
    rows: Rows
    answers: Indices
    truths: Indices
    latency: Mapping[str, Floats] = field(default_factory=dict)
    batch: Indices = field(default_factory=lambda: np.zeros(0, np.int64))


def nothing(chain: Chain) -> Window:
    """Return a window in which nothing happened."""
    return _window(chain, None, None, [])


def of_rows(rows: Rows) -> Window:
    """Return a window of rows that were replayed."""
    known = rows.known
    return Window(None, None, rows, rows.served[known], rows.labels[known])


def read(
    chain: Chain, store: EventStore, since: float | None = None, until: float | None = None, variant: str | None = None
) -> Window:
    """Read what ``chain``'s release answered with ``since`` ≤ time < ``until`` (Unix seconds), shadows included.

    At most ``MOST`` sampled requests, labels and latencies each are read, the newest.
    """
    own = [each[4:] for each in store.sources() if each[0] == chain.revision]
    if not own:
        return nothing(chain)
    start = max(min(first for first, _ in own), -inf if since is None else since)
    end = min(max(last for _, last in own) + 1, inf if until is None else until)
    chosen: dict[str, Any] = {"revision": chain.revision, "variant": variant}
    sampled = _newest(lambda a, b: store.predictions(a, b, sampled=True, **chosen), start, end)
    labelled = _newest(lambda a, b: store.labelled(a, b, **chosen), start, end)
    truth = {(each.id, each.index): chain.index(each.label) for each in labelled}
    window = _window(chain, since, until, sampled, truth)
    latencies: dict[str, list[float]] = {}
    batch = []
    for each in _newest(lambda a, b: store.predictions(a, b, **chosen), start, end):
        batch.append(len(each.outputs))
        for part, seconds in each.latency.items():
            latencies.setdefault(part, []).append(seconds)
    return Window(
        since, until, window.rows,
        np.array([UNKNOWN if each.answer is None else chain.index(each.answer) for each in labelled], np.int64),
        np.array([truth[each.id, each.index] for each in labelled], np.int64),
        {part: np.array(seconds) for part, seconds in latencies.items()}, np.array(batch, np.int64),
    )  # fmt: skip


def _newest(read: Callable[[float, float], Iterable[Event]], start: float, end: float) -> list[Event]:
    """Return up to ``MOST`` events, oldest first; they are read in spans that go back in time and grow."""
    found: list[Event] = []
    span = SPAN
    while end > start and len(found) < MOST:
        before = max(start, end - span)
        found = list(read(before, end)) + found
        end, span = before, span * 2
    return found[-MOST:]


def _window(
    chain: Chain,
    since: float | None,
    until: float | None,
    sampled: list[Prediction],
    truth: Mapping[tuple[str, int], int] | None = None,
) -> Window:
    whole = [each for each in sampled if each.stages and set(chain.line) <= each.stages.keys()]
    ids: list[str] = []
    labels, served = [], []
    for each in whole:
        for place in each.sampled or []:
            ids.append(f"{each.id}/{place}")
            labels.append((truth or {}).get((each.id, place), UNKNOWN))
            served.append(UNKNOWN if each.labels is None else chain.index(each.labels[place]))
    width = next(iter(chain.reference.outputs.values())).shape[1:]
    outputs = {
        stage: np.concatenate([np.zeros((0, *width), np.float32), *((each.stages or {})[stage] for each in whole)])
        for stage in chain.line
    }
    inputs = None
    if whole and all(each.inputs for each in whole):
        names = (whole[0].inputs or {}).keys()
        inputs = {name: np.concatenate([(each.inputs or {})[name] for each in whole]) for name in names}
    rows = Rows(ids, outputs, np.array(labels, np.int64), np.array(served, np.int64), inputs)
    empty = np.zeros(0, np.int64)
    return Window(since, until, rows, empty, empty)
