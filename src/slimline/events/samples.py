"""What every stage said of sampled rows, and their inputs, as the store holds both: by (id, source)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from slimline.events import arrays
from slimline.events.records import Arrays
from slimline.events.schema import INPUTS, STAGES
from slimline.events.writing import FLOAT32

Key = tuple[str, int]
Stages = dict[Key, dict[str, NDArray[np.float32]]]
Inputs = dict[Key, Arrays]
KEYS = 256  # in one query, a power of two; SQLite takes 32,766 values


def stages(connection: Connection, rows: Sequence[Any]) -> Stages:
    """Return {key: {stage: outputs [sampled rows, k]}} of those among ``rows`` that were sampled."""
    found: Stages = {}
    for row in _those(connection, rows, STAGES):
        found.setdefault((row.id, row.source), {})[row.stage] = matrix(row.outputs, row.width)
    return found


def inputs(connection: Connection, rows: Sequence[Any]) -> Inputs:
    """Return {key: {input: [sampled rows, …]}} of those among ``rows`` whose inputs were kept."""
    found: Inputs = {}
    for row in _those(connection, rows, INPUTS):
        found.setdefault((row.id, row.source), {})[row.name] = arrays.unpack(row.array)
    return found


def matrix(data: bytes, width: int) -> NDArray[np.float32]:
    """Return the outputs [rows, width] that were written as ``data``."""
    array: NDArray[np.float32] = np.frombuffer(data, FLOAT32).reshape(-1, width) if width else np.zeros((0, 0), FLOAT32)
    return array


def keys(rows: Sequence[Any]) -> Iterator[list[Key]]:
    """Yield the keys of sampled rows, as many as a power of two each time: the last is repeated.

    SQLite's driver keeps the last 128 statements prepared, tens of kB each; one a length would fill that slowly.
    """
    found = sorted({(row.id, row.source) for row in rows if row.sampled is not None})
    for start in range(0, len(found), KEYS):
        own = found[start : start + KEYS]
        yield own + own[-1:] * ((1 << (len(own) - 1).bit_length()) - len(own))


def _those(connection: Connection, rows: Sequence[Any], table: sa.Table) -> Iterator[Any]:
    for each in keys(rows):
        yield from connection.execute(sa.select(table).where(sa.tuple_(table.c.id, table.c.source).in_(each)))
