"""Windows of the store: predictions, and labelled rows, oldest first, page by page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import orjson
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from slimline.events import samples
from slimline.events.records import Arrays, Labelled, Prediction
from slimline.events.schema import LABELS, PREDICTIONS, SOURCES

Reading = Callable[[], AbstractContextManager[Connection]]
P, S, L = PREDICTIONS.c, SOURCES.c, LABELS.c
ANSWERED = (*PREDICTIONS.columns, S.revision, S.variant, S.shadow)
Outputs = dict[str, NDArray[np.float32]]


class Window(NamedTuple):
    """What is read: ``since`` ≤ time < ``until``, of one revision or variant; None is any."""

    since: float | None = None
    until: float | None = None
    revision: str | None = None
    variant: str | None = None
    shadow: bool | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """Return the window as conditions."""
        chosen: list[tuple[object, Callable[[], sa.ColumnElement[bool]]]] = [
            (self.since, lambda: P.time >= self.since),
            (self.until, lambda: P.time < self.until),
            (self.revision, lambda: S.revision == self.revision),
            (self.variant, lambda: S.variant == self.variant),
            (self.shadow, lambda: S.shadow == self.shadow),
        ]
        return [make() for value, make in chosen if value is not None]


def predictions(reading: Reading, window: Window, *, page: int, sampled: bool) -> Iterator[Prediction]:
    """Yield the predictions of a window by time; ``sampled``: those with stages alone."""
    query = sa.select(*ANSWERED).join(SOURCES, P.source == S.key).where(*window.conditions())
    if sampled:
        query = query.where(P.sampled.is_not(None))
    query = query.order_by(P.time, P.sequence).limit(page)
    last: Sequence[Any] | None = None
    while True:
        after = query if last is None else query.where(sa.tuple_(P.time, P.sequence) > sa.tuple_(*last))
        with reading() as connection:
            rows = connection.execute(after).all()
            found = _whole(connection, rows)
        yield from found
        if len(rows) < page:
            return
        last = (rows[-1].time, rows[-1].sequence)


def find(connection: Connection, id: str) -> list[Prediction]:  # noqa: A002
    """Return the predictions under one id in the order they were written."""
    query = sa.select(*ANSWERED).join(SOURCES, P.source == S.key).where(P.id == id).order_by(P.sequence)
    return _whole(connection, connection.execute(query).all())


def labelled(reading: Reading, window: Window, *, page: int) -> Iterator[Labelled]:
    """Yield the labelled rows of a window by time."""
    query = (
        sa.select(*ANSWERED, L.row, L.label, L.time.label("labelled"))
        .join(SOURCES, P.source == S.key)
        .join(LABELS, (L.id == P.id) & L.current & (L.row < P.rows))
        .where(*window.conditions())
        .order_by(P.time, P.sequence, L.row)
        .limit(page)
    )
    last: Sequence[Any] | None = None
    while True:
        place = sa.tuple_(P.time, P.sequence, L.row)
        after = query if last is None else query.where(P.time >= last[0], place > sa.tuple_(*last))
        with reading() as connection:
            rows: Sequence[Any] = connection.execute(after).all()
            stages = samples.stages(connection, rows)
        for row in rows:
            yield _labelled(row, stages.get((row.id, row.source), {}))
        if len(rows) < page:
            return
        last = (rows[-1].time, rows[-1].sequence, rows[-1].row)


def counts(connection: Connection) -> dict[str, int]:
    """Return how much there is of what."""
    known = sa.exists().where(P.id == L.id)
    holding = sa.select(sa.func.count()).select_from(LABELS).where(L.current)
    queries = {
        "predictions": sa.select(sa.func.count()).select_from(PREDICTIONS),
        "labels": holding,
        "early": holding.where(~known),
    }
    return {name: int(connection.execute(query).scalar_one()) for name, query in queries.items()}


def sources(connection: Connection) -> list[tuple[str, str, bool, int, float, float]]:
    """Return who predicted, how much, and from when to when."""
    span = (sa.func.count(), sa.func.min(P.time), sa.func.max(P.time))
    query = sa.select(S.revision, S.variant, S.shadow, *span).join(SOURCES, P.source == S.key)
    found: Sequence[Any] = connection.execute(query.group_by(S.key).order_by(S.key)).all()
    return [(*row,) for row in found]


def _whole(connection: Connection, rows: Sequence[Any]) -> list[Prediction]:
    stages, inputs = samples.stages(connection, rows), samples.inputs(connection, rows)
    return [_prediction(row, stages.get((row.id, row.source)), inputs.get((row.id, row.source))) for row in rows]


def _prediction(row: Any, stages: Outputs | None, inputs: Arrays | None) -> Prediction:
    return Prediction(
        id=row.id,
        time=row.time,
        revision=row.revision,
        variant=row.variant,
        labels=None if row.answers is None else orjson.loads(row.answers),
        outputs=samples.matrix(row.outputs, row.width),
        latency={part: microseconds / 1e6 for part, microseconds in orjson.loads(row.latency).items()},
        shadow=row.shadow,
        stages=stages,
        sampled=None if row.sampled is None else orjson.loads(row.sampled),
        inputs=inputs,
    )


def _labelled(row: Any, stages: Outputs) -> Labelled:
    answers = None if row.answers is None else orjson.loads(row.answers)
    sampled = [] if row.sampled is None else orjson.loads(row.sampled)
    place = sampled.index(row.row) if row.row in sampled else None
    return Labelled(
        id=row.id,
        index=row.row,
        time=row.time,
        revision=row.revision,
        variant=row.variant,
        shadow=row.shadow,
        answer=None if answers is None else answers[row.row],
        outputs=samples.matrix(row.outputs, row.width)[row.row],
        label=json.loads(row.label),
        labelled=row.labelled,
        stages=None if place is None else {stage: outputs[place] for stage, outputs in stages.items()},
    )
