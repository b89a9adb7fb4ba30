"""Connections to SQLite or PostgreSQL with the durability each kind of write needs, and one name for each fault.

What is durable when:

- a *prediction* batch survives a killed process. A power cut may take the last moments: SQLite runs it with
  ``synchronous=NORMAL``, PostgreSQL with ``synchronous_commit=off``.
- a *label* survives a power cut once the call returned: ``synchronous=FULL`` fsyncs SQLite's write-ahead log at
  each commit (https://www.sqlite.org/pragma.html#pragma_synchronous), ``synchronous_commit=on`` PostgreSQL's.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from slimline.errors import EventError

Kind = Literal["prediction", "label", "read"]
LOCKS: dict[Kind, int] = {"prediction": 7_546_001, "label": 7_546_002}  # PostgreSQL's advisory locks: any two numbers
SQLITE_REASONS = {
    "SQLITE_BUSY": "locked",
    "SQLITE_LOCKED": "locked",
    "SQLITE_READONLY": "read-only",
    "SQLITE_PERM": "read-only",
    "SQLITE_FULL": "full",
    "SQLITE_CANTOPEN": "unreachable",
    "SQLITE_IOERR": "unreachable",
    "SQLITE_CONSTRAINT": "invalid",
    "SQLITE_TOOBIG": "invalid",
    "SQLITE_NOTADB": "unreachable",
    "SQLITE_CORRUPT": "unreachable",
}
POSTGRES_REASONS = {
    "08": "unreachable",  # connection exception
    "28": "unreachable",  # invalid authorization
    "3D": "unreachable",  # no such database
    "57": "unreachable",  # shutting down, cancelled
    "22": "invalid",  # data exception
    "23": "invalid",  # integrity constraint violation
    "25": "read-only",
    "53": "full",
    "55": "locked",
    "40": "locked",  # serialization failure, deadlock
}

TRANSIENT = frozenset({"unreachable", "locked", "read-only", "full", "schema"})  # the store's fault, not the data's
VACUUM = 2000  # pages given back in one transaction


class Database:
    """One store's connections. ``timeout`` (seconds) bounds the wait for a lock, a connection or an answer."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url = _parsed(url)
        self.timeout = timeout
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.path = Path(self.url.database or "") if self.is_sqlite else None
        self._file: tuple[int, int] | None = None
        if self.is_sqlite:
            self._engines: dict[Kind, Engine] = {
                "prediction": self._sqlite("NORMAL", "BEGIN IMMEDIATE"),
                "label": self._sqlite("FULL", "BEGIN IMMEDIATE"),
                "read": self._sqlite("NORMAL", "BEGIN"),
            }
        else:
            engine = self._postgres()
            self._engines = {"prediction": engine, "label": engine, "read": engine}

    @property
    def name(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def begin(self, kind: Kind) -> Iterator[Connection]:
        """Open a transaction for this kind of work; raise EventError for whatever the database says against it.

        Writes of one kind run one after the other (SQLite has one writer; PostgreSQL takes an advisory lock), so that
        sequence numbers appear in their own order: a reader that remembers the last one it saw misses none.
        """
        try:
            if self.is_sqlite:
                self._follow_file()
            with self._engines[kind].begin() as connection:
                if kind in LOCKS and not self.is_sqlite:
                    mode = "on" if kind == "label" else "off"
                    connection.exec_driver_sql(f"SET LOCAL synchronous_commit = {mode}")
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCKS[kind]})")
                yield connection
        except SQLAlchemyError as error:
            raise self.told(error) from error

    def told(self, error: Exception) -> EventError:
        """Return the EventError that says in one line what a database error means."""
        cause = getattr(error, "orig", None) or error
        reason = _reason(cause)
        if reason == "unreachable" and self.path is not None and self.path.is_file() and not self._writable(self.path):
            reason = "read-only"  # SQLite says that it can't open its log
        text = " ".join(str(cause).split()) or type(cause).__name__
        return EventError(f"event store {self.name}: {reason}: {text}", reason)

    def close(self) -> None:
        """Drop all connections; the next use opens new ones."""
        for engine in self._engines.values():
            engine.dispose()
        self._file = None

    def use_wal(self) -> None:
        """Switch an SQLite file to write-ahead logging, so that readers read while one writes; the file remembers."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                self._pragma("auto_vacuum=INCREMENTAL")  # only a new file takes it
                self._pragma("journal_mode=WAL")
            except EventError as error:
                if error.reason != "locked" or time.monotonic() > deadline:  # SQLite doesn't wait for this lock itself
                    raise
                time.sleep(0.01)
            else:
                return

    def shrink(self) -> None:
        """Give an SQLite file's free pages back and empty its write-ahead log, which still holds what was deleted.

        A few pages a transaction, so that writers get their turn. While others read or write, what is left is done by
        a later call.
        """
        if not self.is_sqlite:
            return
        try:
            free = self._pragma("freelist_count")
            while free > 0:
                self._vacuum()
                before, free = free, self._pragma("freelist_count")
                if free >= before:  # a file from elsewhere that keeps its pages, or writers that free as many
                    break
            self._pragma("wal_checkpoint(TRUNCATE)")
        except EventError as error:
            if error.reason != "locked":
                raise

    @staticmethod
    def _writable(path: Path) -> bool:
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)

    def _pragma(self, pragma: str) -> int:
        """Run a PRAGMA statement outside of any transaction; return the number it says, or 0."""
        try:
            with self._engines["label"].connect() as connection:
                cursor = connection.connection.cursor()  # the driver's own
                rows = cursor.execute(f"PRAGMA {pragma}").fetchall()
                cursor.close()
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise self.told(error) from error
        return int(rows[0][0]) if rows and isinstance(rows[0][0], int) else 0

    def _vacuum(self) -> None:
        """Free some pages. A script runs its statements to the end; ``execute`` would stop after the first page."""
        try:
            with self._engines["label"].connect() as connection:
                cursor: Any = connection.connection.cursor()
                cursor.executescript(f"PRAGMA incremental_vacuum({VACUUM})")
                cursor.close()
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise self.told(error) from error

    def _sqlite(self, synchronous: str, begin: str) -> Engine:
        engine = sa.create_engine(
            self.url, connect_args={"timeout": self.timeout, "isolation_level": None, "check_same_thread": False}
        )

        @sa.event.listens_for(engine, "connect")
        def _set_up(connection: Any, _: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA synchronous={synchronous}")
            cursor.execute("PRAGMA secure_delete=ON")  # what is purged is gone from the file, not only from its index
            cursor.execute("PRAGMA journal_size_limit=67108864")
            cursor.close()

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

    def _postgres(self) -> Engine:
        milliseconds = int(self.timeout * 1000)
        arguments: dict[str, Any] = {
            "connect_timeout": max(2, int(self.timeout)),
            "tcp_user_timeout": milliseconds,  # a server that fell off the network
            "options": f"-c lock_timeout={milliseconds} -c statement_timeout={max(30_000, milliseconds)}",
            "application_name": "slimline",
        }
        chosen = {key: value for key, value in arguments.items() if key not in self.url.query}
        try:
            return sa.create_engine(self.url, connect_args=chosen, pool_pre_ping=True, pool_timeout=self.timeout)
        except ModuleNotFoundError as error:
            raise EventError(
                f"event store {self.name}: {error.name} isn't installed: pip install 'slimline[postgres]'",
                "unreachable",
            ) from error

    def _follow_file(self) -> None:
        """Let go of a database file that was deleted or replaced: writes to it would vanish without an error."""
        assert self.path is not None  # noqa: S101
        try:
            status = self.path.stat()
            found: tuple[int, int] | None = (status.st_dev, status.st_ino)
        except OSError:
            found = None
        if self._file is not None and found != self._file:
            self.close()
            raise EventError(f"event store {self.name}: unreachable: the file was replaced or deleted", "unreachable")
        self._file = found


def _parsed(text: str) -> URL:
    try:
        url = make_url(text)
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise EventError(
            "event store: the URL can't be read: give sqlite:///events.db or postgresql+psycopg://user@host/database"
        ) from error
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        raise EventError(f"event store: {url.get_backend_name()} isn't supported: use sqlite or postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and (url.database or ":memory:") == ":memory:":
        raise EventError("event store: SQLite in memory holds nothing for others: name a file, sqlite:///events.db")
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _reason(cause: Exception) -> str:
    """Return one word for what a driver's error means."""
    if name := getattr(cause, "sqlite_errorname", None):
        if name.startswith("SQLITE_IOERR") and _disk_is_full(cause):
            return "full"
        return next((reason for prefix, reason in SQLITE_REASONS.items() if str(name).startswith(prefix)), "failed")
    if state := getattr(cause, "sqlstate", None):
        return POSTGRES_REASONS.get(str(state)[:2], "failed")
    name = type(cause).__name__  # the two drivers share the names of PEP 249
    if name == "DataError":
        return "invalid"
    return "unreachable" if name in {"OperationalError", "InterfaceError", "TimeoutError"} else "failed"


def _disk_is_full(cause: Exception) -> bool:
    return os.strerror(errno.ENOSPC) in str(cause)
