"""Predictions, their sampled stages and inputs, and labels with their history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "sources",
        sa.Column("key", sa.Integer, primary_key=True),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("variant", sa.Text, nullable=False),
        sa.Column("shadow", sa.Boolean, nullable=False),
        sa.UniqueConstraint("revision", "variant", "shadow", name="sources_once"),
    )
    op.create_table(
        "predictions",
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
        sqlite_autoincrement=True,
    )
    op.create_index("predictions_by_time", "predictions", ["time", "sequence"])
    op.create_table(
        "stages",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("source", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("stage", sa.Text, primary_key=True),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("outputs", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "inputs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("source", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("array", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "labels",
        sa.Column("sequence", SEQUENCE, primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("row", sa.Integer, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("current", sa.Boolean, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("labels_by_id", "labels", ["id", "row", "sequence"])
    op.create_index("labels_by_time", "labels", ["time"])
    holds = sa.text("current")
    op.create_index("labels_current", "labels", ["id", "row"], unique=True, sqlite_where=holds, postgresql_where=holds)


def downgrade() -> None:
    """Remove everything; there is nothing before the first version."""
    for table in ("labels", "inputs", "stages", "predictions", "sources"):
        op.drop_table(table)
