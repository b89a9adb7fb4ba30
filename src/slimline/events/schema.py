"""The tables, as SQLAlchemy sees them. ``migrations/`` makes them; a test holds the two together.

A prediction is one row whatever its batch size: its outputs are one blob of little-endian float32, rows × width.
Revision, variant and shadow repeat in each of them, so they stand once in ``sources``.
"""

from __future__ import annotations

import sqlalchemy as sa

HEAD = "0001"  # the newest migration; known here so that opening an up-to-date store needn't load alembic
SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # only INTEGER PRIMARY KEY counts up in SQLite
METADATA = sa.MetaData()

SOURCES = sa.Table(
    "sources",
    METADATA,
    sa.Column("key", sa.Integer, primary_key=True),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("variant", sa.Text, nullable=False),
    sa.Column("shadow", sa.Boolean, nullable=False),
    sa.UniqueConstraint("revision", "variant", "shadow", name="sources_once"),
)

PREDICTIONS = sa.Table(
    "predictions",
    METADATA,
    sa.Column("sequence", SEQUENCE, primary_key=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("source", sa.Integer, nullable=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("answers", sa.Text),
    sa.Column("outputs", sa.LargeBinary, nullable=False),
    sa.Column("latency", sa.Text, nullable=False),
    sa.Column("sampled", sa.Text),
    sa.UniqueConstraint("id", "source", name="predictions_once"),
    sa.Index("predictions_by_time", "time", "sequence"),
    sqlite_autoincrement=True,
)

STAGES = sa.Table(
    "stages",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("source", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("outputs", sa.LargeBinary, nullable=False),
)

INPUTS = sa.Table(
    "inputs",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("source", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("array", sa.LargeBinary, nullable=False),
)

LABELS = sa.Table(
    "labels",
    METADATA,
    sa.Column("sequence", SEQUENCE, primary_key=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("row", sa.Integer, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("current", sa.Boolean, nullable=False),
    sa.Index("labels_by_id", "id", "row", "sequence"),
    sa.Index("labels_by_time", "time"),
    sqlite_autoincrement=True,
)
# One label holds for a row; those before it are its history.
sa.Index(
    "labels_current",
    LABELS.c.id,
    LABELS.c.row,
    unique=True,
    sqlite_where=sa.text("current"),
    postgresql_where=sa.text("current"),
)
