"""The log of labels: every label ever written for a row, of which the last holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from slimline.errors import EventError
from slimline.events.records import Label, Outcome
from slimline.events.schema import LABELS, PREDICTIONS

CHUNK = 500
Key = tuple[str, int]


class Row(NamedTuple):
    """A label as the table holds it, ``label`` being JSON."""

    id: str
    row: int
    label: str
    time: float


def encoded(labels: Sequence[Label]) -> list[Row]:
    """Return labels as rows; raise EventError naming the id of one that can't be stored."""
    return [_row(label) for label in labels]


def _row(label: Label) -> Row:
    if not isinstance(label.id, str) or not label.id or "\0" in label.id:
        raise EventError(f"label: id: expected text, found {label.id!r}")
    if isinstance(label.index, bool) or not isinstance(label.index, int) or not 0 <= label.index < 2**31:
        raise EventError(f"label for {label.id!r}: index: expected a whole number from 0 on, found {label.index!r}")
    if isinstance(label.label, bool) or not isinstance(label.label, str | int | float | list):
        raise EventError(f"label for {label.id!r}: expected text, a number or a list, found {label.label!r}")
    try:
        text = json.dumps(label.label, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        (label.id + text).encode()
    except (ValueError, TypeError) as error:
        raise EventError(f"label for {label.id!r}: {error}") from error
    return Row(label.id, label.index, text, float(label.time))


def write(connection: Connection, rows: Sequence[Row]) -> list[Outcome]:
    """Append labels in order and return what became of each; no other transaction may write labels meanwhile."""
    outcomes: list[Outcome] = []
    iterator = iter(rows)
    while chunk := list(islice(iterator, CHUNK)):
        outcomes += _write(connection, chunk)
    return outcomes


def _write(connection: Connection, rows: list[Row]) -> list[Outcome]:
    ids = sorted({row.id for row in rows})
    known = _row_counts(connection, ids)
    holding = _holding(connection, ids)
    standing = dict(holding)
    outcomes: list[Outcome] = []
    accepted: list[Row] = []
    for row in rows:
        key = (row.id, row.row)
        outcome = _outcome(row, standing.get(key), known.get(row.id))
        outcomes.append(outcome)
        if outcome not in {Outcome.DUPLICATE, Outcome.NO_SUCH_ROW}:
            accepted.append(row)
            standing[key] = row.label
    last = {(row.id, row.row): position for position, row in enumerate(accepted)}
    if superseded := [{"b_id": id_, "b_row": row} for id_, row in last if (id_, row) in holding]:
        match = (LABELS.c.id == sa.bindparam("b_id")) & (LABELS.c.row == sa.bindparam("b_row")) & LABELS.c.current
        connection.execute(sa.update(LABELS).where(match).values(current=False), superseded)
    if accepted:
        current = set(last.values())
        connection.execute(
            sa.insert(LABELS),
            [row._asdict() | {"current": position in current} for position, row in enumerate(accepted)],
        )
    return outcomes


def _outcome(row: Row, standing: str | None, rows: int | None) -> Outcome:
    if rows is not None and row.row >= rows:
        return Outcome.NO_SUCH_ROW
    if standing is not None:
        return Outcome.DUPLICATE if standing == row.label else Outcome.CORRECTED
    return Outcome.EARLY if rows is None else Outcome.NEW


def _row_counts(connection: Connection, ids: list[str]) -> dict[str, int]:
    """Return {id: rows} of the predictions that are known; an id answered twice has the larger count."""
    columns = (PREDICTIONS.c.id, sa.func.max(PREDICTIONS.c.rows))
    found = connection.execute(sa.select(*columns).where(PREDICTIONS.c.id.in_(ids)).group_by(PREDICTIONS.c.id))
    return {id_: rows for id_, rows in found}  # noqa: C416


def _holding(connection: Connection, ids: list[str]) -> dict[Key, str]:
    columns = (LABELS.c.id, LABELS.c.row, LABELS.c.label)
    found = connection.execute(sa.select(*columns).where(LABELS.c.id.in_(ids), LABELS.c.current))
    return {(id_, row): label for id_, row, label in found}


def history(connection: Connection, id: str, index: int) -> list[Label]:  # noqa: A002
    """Return every label of one row, oldest first."""
    return list(_history(connection, id, index))


def _history(connection: Connection, id_: str, index: int) -> Iterator[Label]:
    columns = (LABELS.c.label, LABELS.c.time)
    match = (LABELS.c.id == id_) & (LABELS.c.row == index)
    for label, time in connection.execute(sa.select(*columns).where(match).order_by(LABELS.c.sequence)):
        yield Label(id_, index, json.loads(label), time)
