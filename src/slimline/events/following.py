"""What came into the store since a reader last looked: each prediction once, each label once, in columns.

A reader remembers a ``Position``: the sequence of the last prediction and of the last label it took. A labelled row is
a pair of both, and a step from (p, l) to (p', l') takes the pairs that either side completes::

    l < label ≤ l' and prediction ≤ p'        the label came last
    label ≤ l      and p < prediction ≤ p'    the label was early, and its prediction came now

so every pair comes exactly once, however the two are interleaved, and nothing need be remembered but two numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import orjson
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from slimline.events import samples
from slimline.events.records import Value
from slimline.events.samples import Inputs, Stages
from slimline.events.schema import LABELS, PREDICTIONS, SOURCES
from slimline.events.writing import FLOAT32, Source

P, L = PREDICTIONS.c, LABELS.c
Outputs = NDArray[np.float32]
Floats = NDArray[np.float64]


class Position(NamedTuple):
    """The sequences of the last prediction and the last label that a reader has taken."""

    prediction: int = 0
    label: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Predictions of one source (revision, variant, shadow), oldest first.

    ``time`` [requests] Unix seconds; ``latency`` {part: seconds [requests]}, NaN where a request has no such part;
    ``outputs`` [rows, k]; ``labels`` [rows] what was answered, None for a task without labels; ``request`` [rows] which
    request a row belongs to. ``stages`` {stage: [sampled rows, k]}, NaN where that stage is missing, for the rows
    ``sampled``. ``inputs`` {input: [sampled rows, …]}, without those that were not kept of all these rows.
    """

    source: Source
    time: Floats
    latency: dict[str, Floats]
    outputs: Outputs
    labels: list[str] | None
    request: NDArray[np.int64]
    stages: dict[str, Outputs]
    sampled: NDArray[np.int64]
    inputs: dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Truths:
    """Rows of one source whose truth became known, in the order in which it was written; ``truths`` [rows].

    Only the first label of a row counts. ``time`` [rows] is when it was said and ``predicted`` [rows] when the row was
    answered, Unix seconds; the others as in ``Answers``.
    """

    source: Source
    time: Floats
    predicted: Floats
    outputs: Outputs
    labels: list[str] | None
    truths: list[Value]
    stages: dict[str, Outputs]
    sampled: NDArray[np.int64]


class News(NamedTuple):
    """What was found, and the position after it."""

    position: Position
    answers: list[Answers]
    truths: list[Truths]


def head(connection: Connection) -> Position:
    """Return the largest sequences ever given: they stay when what had them is purged."""
    if connection.dialect.name == "sqlite":
        found = {name: seq for name, seq in connection.exec_driver_sql("SELECT name, seq FROM sqlite_sequence")}  # noqa: C416
        return Position(found.get("predictions", 0), found.get("labels", 0))
    query = "SELECT pg_sequence_last_value(pg_get_serial_sequence(%s, 'sequence')::regclass)"
    given = [connection.exec_driver_sql(query, (table.name,)).scalar() for table in (PREDICTIONS, LABELS)]
    return Position(*(int(each or 0) for each in given))


def after(connection: Connection, position: Position, limit: int) -> News:
    """Return what follows ``position``: ``limit`` predictions at most, and the rows made known by ``limit`` labels."""
    sources: dict[int, Source] = {
        row.key: (row.revision, row.variant, row.shadow) for row in connection.execute(sa.select(SOURCES))
    }
    query = sa.select(PREDICTIONS).where(P.sequence > position.prediction).order_by(P.sequence).limit(limit)
    predicted = connection.execute(query).all()
    some = sa.select(L.sequence).where(L.sequence > position.label).order_by(L.sequence).limit(limit).subquery()
    last_label = connection.execute(sa.select(sa.func.max(some.c.sequence))).scalar()
    reached = Position(predicted[-1].sequence if predicted else position.prediction, last_label or position.label)
    labelled = _completed(connection, position, reached) if reached.label else []
    stages = samples.stages(connection, [*predicted, *labelled])
    inputs = samples.inputs(connection, predicted)
    return News(
        reached,
        [_answers(sources[key[0]], rows, stages, inputs) for key, rows in _grouped(predicted)],
        [_truths(sources[key[0]], rows, stages) for key, rows in _grouped(labelled)],
    )


def _completed(connection: Connection, old: Position, new: Position) -> list[Any]:
    earlier = LABELS.alias("earlier")
    said_before = sa.exists().where(
        (earlier.c.id == L.id) & (earlier.c.row == L.row) & (earlier.c.sequence < L.sequence)
    )
    pairs = (
        sa.select(PREDICTIONS, L.row, L.label, L.time.label("labelled"))
        .join(LABELS, (L.id == P.id) & (L.row < P.rows))
        .where(~said_before)
        .order_by(L.sequence, P.sequence)
    )
    found: list[Any] = []
    if new.prediction > old.prediction and old.label:
        found += connection.execute(
            pairs.where(P.sequence > old.prediction, P.sequence <= new.prediction, L.sequence <= old.label)
        ).all()
    if new.label > old.label:
        found += connection.execute(
            pairs.where(L.sequence > old.label, L.sequence <= new.label, P.sequence <= new.prediction)
        ).all()
    return found


def _grouped(rows: Iterable[Any]) -> list[tuple[tuple[int, int], list[Any]]]:
    """Return rows by (source, width), each in its order: a batch is one matrix."""

    def key(row: Any) -> tuple[int, int]:
        return row.source, row.width

    return [(each, list(group)) for each, group in groupby(sorted(rows, key=key), key)]


def _answers(source: Source, rows: Sequence[Any], stages: Stages, inputs: Inputs) -> Answers:
    counts = np.array([row.rows for row in rows])
    first = np.concatenate(([0], np.cumsum(counts)))
    sampled = [
        ((row.id, row.source), place, first[number] + index)
        for number, row in enumerate(rows)
        if row.sampled is not None
        for place, index in enumerate(orjson.loads(row.sampled))
    ]
    labels: list[list[str]] | None = None
    if all(row.answers is not None for row in rows):
        labels = orjson.loads(f"[{','.join([row.answers for row in rows])}]")  # one call, not one a row
    return Answers(
        source,
        np.array([row.time for row in rows], np.float64),
        _latency(orjson.loads(f"[{','.join([row.latency for row in rows])}]")),
        np.frombuffer(b"".join([row.outputs for row in rows]), FLOAT32).reshape(int(first[-1]), -1),
        None if labels is None else [label for each in labels for label in each],
        np.repeat(np.arange(len(rows)), counts),
        *_sampled(sampled, stages),
        _kept([(inputs.get(key, {}), place) for key, place, _ in sampled if key in stages]),
    )


def _truths(source: Source, rows: Sequence[Any], stages: Stages) -> Truths:
    outputs = [np.frombuffer(row.outputs, FLOAT32, row.width, 4 * row.width * row.row) for row in rows]
    sampled = []
    for number, row in enumerate(rows):
        chosen = [] if row.sampled is None else orjson.loads(row.sampled)
        if row.row in chosen:
            sampled.append(((row.id, row.source), chosen.index(row.row), number))
    answered = None
    if all(row.answers is not None for row in rows):
        answered = [orjson.loads(row.answers)[row.row] for row in rows]
    return Truths(
        source,
        np.array([row.labelled for row in rows], np.float64),
        np.array([row.time for row in rows], np.float64),
        np.stack(outputs),
        answered,
        json.loads(f"[{','.join([row.label for row in rows])}]"),  # orjson refuses integers beyond 64 bits
        *_sampled(sampled, stages),
    )


def _latency(parts: Sequence[dict[str, float]]) -> dict[str, Floats]:
    names = dict.fromkeys(name for each in parts for name in each)
    missing = float("nan")
    return {name: np.array([each.get(name, missing) for each in parts], np.float64) / 1e6 for name in names}


def _kept(rows: Sequence[tuple[dict[str, NDArray[Any]], int]]) -> dict[str, NDArray[Any]]:
    """Return {input: rows} of the inputs that all ``rows``, (a sample's inputs, row among them), have alike."""
    together: dict[str, NDArray[Any]] = {}
    for name in rows[0][0] if rows else ():
        found = [sample[name][place] for sample, place in rows if name in sample and place < len(sample[name])]
        if len(found) == len(rows) and len({(each.shape, each.dtype) for each in found}) == 1:
            together[name] = np.stack(found)
    return together


def _sampled(
    places: Sequence[tuple[tuple[str, int], int, int]], stages: Stages
) -> tuple[dict[str, Outputs], NDArray[np.int64]]:
    """Return ({stage: rows}, row numbers) of what was sampled; ``places`` are (key, row among its sample, row here)."""
    known = [(stages[key], place, row) for key, place, row in places if key in stages]
    together: dict[str, Outputs] = {}
    for stage in dict.fromkeys(name for outputs, _, _ in known for name in outputs):
        width = next(outputs[stage].shape[1] for outputs, _, _ in known if stage in outputs)
        nothing = np.full(width, np.nan, np.float32)
        together[stage] = np.stack([_row(outputs.get(stage), place, nothing) for outputs, place, _ in known])
    return together, np.array([row for _, _, row in known], np.int64)


def _row(outputs: Outputs | None, place: int, nothing: Outputs) -> Outputs:
    is_there = outputs is not None and place < len(outputs) and outputs.shape[1] == len(nothing)
    return outputs[place] if is_there and outputs is not None else nothing
