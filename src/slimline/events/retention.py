"""Deleting: what has become too old, or everything under one id."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from slimline.events.database import Database
from slimline.events.schema import INPUTS, LABELS, PREDICTIONS, STAGES

CHUNK = 1000
P, L = PREDICTIONS.c, LABELS.c


def purge_id(database: Database, id: str) -> dict[str, int]:  # noqa: A002
    """Delete everything under one id; return {predictions, labels} deleted."""
    with database.begin("prediction") as connection:
        predictions = _predictions(connection, [id], P.id == id)
    with database.begin("label") as connection:
        labels = connection.execute(sa.delete(LABELS).where(L.id == id)).rowcount
    database.shrink()
    return {"predictions": predictions, "labels": labels}


def purge_before(database: Database, before: float, chunks: int | None = None) -> dict[str, int]:
    """Delete what is older than ``before`` (Unix seconds); return {predictions, labels} deleted.

    In transactions of a thousand predictions, so that writers get their turn between them; ``chunks`` limits their
    number. Labels go with their prediction, however late they came; one that never found it goes by its own time.
    """
    deleted = {"predictions": 0, "labels": 0}
    finished = False
    while not finished and (chunks is None or chunks > 0):
        with database.begin("prediction") as connection:
            oldest = sa.select(P.sequence, P.id).where(P.time < before).order_by(P.time, P.sequence).limit(CHUNK)
            rows = connection.execute(oldest).all()
            ids = sorted({row.id for row in rows})
            if rows:
                deleted["predictions"] += _predictions(connection, ids, P.sequence.in_([row.sequence for row in rows]))
        with database.begin("label") as connection:
            labels = _orphans(connection, ids) if rows else _early(connection, before)
        deleted["labels"] += labels
        finished = not rows and not labels
        chunks = None if chunks is None else chunks - 1
    if finished:
        database.shrink()
    return deleted


def _predictions(connection: Connection, ids: list[str], chosen: sa.ColumnElement[bool]) -> int:
    """Delete the chosen predictions, then the stages and inputs under ``ids`` that have lost theirs."""
    count = connection.execute(sa.delete(PREDICTIONS).where(chosen)).rowcount
    for table in (STAGES, INPUTS):
        kept = sa.exists().where((P.id == table.c.id) & (P.source == table.c.source))
        connection.execute(sa.delete(table).where(table.c.id.in_(ids), ~kept))
    return count


def _orphans(connection: Connection, ids: list[str]) -> int:
    """Delete the labels under ``ids`` whose predictions are gone."""
    return connection.execute(sa.delete(LABELS).where(L.id.in_(ids), ~sa.exists().where(P.id == L.id))).rowcount


def _early(connection: Connection, before: float) -> int:
    """Delete a thousand labels whose prediction never came and of whose id nothing was said since ``before``."""
    newer = LABELS.alias("newer")
    said_since = sa.exists().where((newer.c.id == L.id) & (newer.c.time >= before))
    forgotten = (L.time < before) & ~sa.exists().where(P.id == L.id) & ~said_since
    sequences = connection.execute(sa.select(L.sequence).where(forgotten).limit(CHUNK)).scalars().all()
    if sequences:
        connection.execute(sa.delete(LABELS).where(L.sequence.in_(sequences)))
    return len(sequences)
