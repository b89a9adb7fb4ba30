"""Predictions to rows of the store: few bytes each, and many in one statement.

A statement of 64 rows runs in one call of the driver. SQLite's module gives the interpreter's lock back once per
call, so the thread that writes takes it from the thread that serves 64 times less often than row by row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from slimline.errors import EventError
from slimline.events import arrays
from slimline.events.records import Prediction
from slimline.events.schema import INPUTS, PREDICTIONS, SOURCES, STAGES

Source = tuple[str, str, bool]
Row = tuple[Any, ...]
CHUNK = 64
MISTAKES = (ValueError, TypeError, AttributeError, OverflowError)
COLUMNS = tuple(column.name for column in PREDICTIONS.columns if column.name != "sequence")
FLOAT32 = np.dtype("<f4")


def write(connection: Connection, predictions: Sequence[Prediction], sources: dict[Source, int]) -> int:
    """Insert predictions with their sampled stages and inputs; return how many were new. ``sources`` is a cache."""
    try:
        for source in {(each.revision, each.variant, each.shadow) for each in predictions}:
            if source not in sources:
                sources[source] = _source_key(connection, source)
        new = _insert(connection, PREDICTIONS, COLUMNS, (_row(each, sources) for each in predictions))
    except MISTAKES:
        for each in predictions:
            check(each)  # names the one
        raise
    sampled = [each for each in predictions if each.stages or each.inputs]
    stages = [
        (each.id, sources[each.revision, each.variant, each.shadow], stage, *_matrix(outputs)[1:])
        for each in sampled
        for stage, outputs in (each.stages or {}).items()
    ]
    inputs = [
        (each.id, sources[each.revision, each.variant, each.shadow], name, arrays.pack(array))
        for each in sampled
        for name, array in (each.inputs or {}).items()
    ]
    _insert(connection, STAGES, ("id", "source", "stage", "width", "outputs"), stages)
    _insert(connection, INPUTS, ("id", "source", "name", "array"), inputs)
    return new


def _row(prediction: Prediction, sources: dict[Source, int]) -> Row:
    rows, width, outputs = _matrix(prediction.outputs)
    if not math.isfinite(prediction.time):  # PostgreSQL would take it, and no window ever find it
        raise ValueError("time is not finite")
    labels, sampled = prediction.labels, prediction.sampled
    return (
        prediction.id,
        sources[prediction.revision, prediction.variant, prediction.shadow],
        prediction.time,
        rows,
        width,
        None if labels is None else orjson.dumps(labels).decode(),
        outputs,
        orjson.dumps({part: round(seconds * 1e6) for part, seconds in prediction.latency.items()}).decode(),
        None if sampled is None else orjson.dumps(sampled).decode(),
    )


def _matrix(outputs: Any) -> tuple[int, int, bytes]:
    """Return (rows, width, little-endian float32): one axis is one output a row, axes after the second are one."""
    array = np.asarray(outputs, FLOAT32)
    rows = len(array)
    return rows, array.size // rows if rows else 0, array.tobytes()


def _source_key(connection: Connection, source: Source) -> int:
    match = sa.and_(*(SOURCES.c[name] == value for name, value in zip(SOURCES.c.keys()[1:], source, strict=True)))
    found = connection.execute(sa.select(SOURCES.c.key).where(match)).scalar()
    if found is None:  # another process may be writing it, but not in this moment: writers wait for each other
        values = dict(zip(SOURCES.c.keys()[1:], source, strict=True))
        found = connection.execute(sa.insert(SOURCES).values(values).returning(SOURCES.c.key)).scalar_one()
    return int(found)


def _insert(connection: Connection, table: sa.Table, columns: tuple[str, ...], rows: Iterable[Row]) -> int:
    """Insert rows, leaving those whose key is there already, and return how many were new."""
    new = 0
    for chunk in _chunks(rows):
        statement = _statement(table.name, columns, len(chunk), connection.dialect.name == "sqlite")
        new += connection.exec_driver_sql(statement, tuple(chain.from_iterable(chunk))).rowcount
    return new


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


@cache
def _statement(table: str, columns: tuple[str, ...], count: int, is_sqlite: bool) -> str:
    marks = ", ".join(["?" if is_sqlite else "%s"] * len(columns))
    names = ", ".join(f'"{column}"' for column in columns)
    values = ", ".join([f"({marks})"] * count)
    return f'INSERT INTO "{table}" ({names}) VALUES {values} ON CONFLICT DO NOTHING'  # noqa: S608


def check(prediction: Prediction) -> None:
    """Raise EventError when a prediction can't be a row, whatever the state of the store."""
    texts = [prediction.id, prediction.revision, prediction.variant, *(prediction.labels or [])]
    if not all(isinstance(text, str) for text in texts):
        raise EventError(f"prediction {prediction.id!r}: id, revision, variant and labels must be text")
    if any("\0" in text for text in texts):
        raise EventError(f"prediction {prediction.id!r}: a zero byte in id, revision, variant or label")
    try:
        for text in texts:
            text.encode()
        _row(prediction, {(prediction.revision, prediction.variant, prediction.shadow): 0})
    except MISTAKES as error:
        raise EventError(f"prediction {prediction.id!r}: {error}") from error
