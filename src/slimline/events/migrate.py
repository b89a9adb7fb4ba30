"""Brings a store's schema up to date when it is opened; of several processes that start at once, one does it."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from slimline.errors import EventError
from slimline.events import schema
from slimline.events.database import Database

LOCK = 7_546_000


def migrate(database: Database, *, create: bool = True) -> None:
    """Run the migrations that a store lacks, in one transaction.

    Raises EventError for a newer store than this code and, unless ``create``, where there is none yet.
    """
    nothing = f"event store {database.name}: there is none; the endpoint makes it when it starts"
    if database.path is not None:
        if not create and not database.path.is_file():
            raise EventError(nothing)
        database.use_wal()
    with database.begin("read") as connection:
        version = _version(connection)
    if version == schema.HEAD:
        return
    if version is None and not create:
        raise EventError(nothing)
    with database.begin("label") as connection:  # BEGIN IMMEDIATE: other processes wait here for SQLite's one writer
        if not database.is_sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        if _version(connection) != schema.HEAD:  # another process may have been here while this one waited
            _upgrade(connection, database.name)


def _version(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection, name: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "slimline.events:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise EventError(
            f"event store {name}: schema {_version(connection)} is unknown here, the newest known is {schema.HEAD}: "
            "upgrade slimline",
            "schema",
        ) from error
