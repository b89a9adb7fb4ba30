"""The event store: predictions and labels in SQLite or PostgreSQL, written in batches, read in windows of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Self

from sqlalchemy.engine import Connection

from slimline.errors import EventError
from slimline.events import following, reading, retention, writing
from slimline.events import labels as label_log
from slimline.events.database import Database, Kind
from slimline.events.following import News, Position
from slimline.events.migrate import migrate
from slimline.events.records import Label, Labelled, Outcome, Prediction

DEFAULT_URL = "sqlite:///events.db"
START = Position()


class EventStore:
    """Predictions and labels; open it with ``EventStore.open``. Its methods may be called from any thread.

    Every method raises EventError (with ``reason``: unreachable, locked, read-only, full, …) when the database can't
    do it; nothing half-done stays.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self.database = database
        self._clock = clock
        self._was_away = False
        self._sources: dict[writing.Source, int] = {}

    @classmethod
    def open(
        cls,
        url: str = DEFAULT_URL,
        *,
        timeout: float = 5.0,
        create: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> EventStore:
        """Open a store, creating it (unless ``create`` is False) or bringing its schema up to date first.

        ``url`` is ``sqlite:///FILE`` or ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE``; ``timeout`` bounds, in
        seconds, every wait for a lock or a connection; ``clock`` tells Unix time.
        """
        database = Database(url, timeout)
        try:
            migrate(database, create=create)
        except BaseException:
            database.close()
            raise
        return cls(database, clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, predictions: Sequence[Prediction]) -> int:
        """Write predictions in one transaction and return how many were new.

        A prediction whose id was already written for the same revision and variant is left as it stands, so a write
        may be repeated. It survives a killed process when this returns, but maybe not a power cut.
        """
        try:
            with self._begin("prediction") as connection:
                return writing.write(connection, predictions, self._sources)
        except BaseException:
            self._sources.clear()  # a source written in this transaction is gone with it
            raise

    def label(self, labels: Sequence[Label]) -> list[Outcome]:
        """Write labels in one transaction, in order, and return what became of each.

        When this returns they are on the disk. The last label written for a row holds, those before it stay as its
        history; which is last is decided by the order of writing, not by any clock.
        """
        rows = label_log.encoded(labels)  # before the lock is taken
        with self._begin("label") as connection:
            return label_log.write(connection, rows)

    def history(self, id: str, index: int = 0) -> list[Label]:  # noqa: A002
        """Return every label written for one row, oldest first; the last one holds."""
        with self._reading() as connection:
            return label_log.history(connection, id, index)

    def predictions(
        self,
        since: float | None = None,
        until: float | None = None,
        *,
        revision: str | None = None,
        variant: str | None = None,
        shadow: bool | None = None,
        sampled: bool = False,
        page: int = 1000,
    ) -> Iterator[Prediction]:
        """Yield predictions with ``since`` ≤ time < ``until`` (Unix seconds), oldest first.

        ``sampled`` keeps those alone whose rows went through the whole chain. Read in pages of a short transaction
        each, so a slow consumer holds nothing.
        """
        window = reading.Window(since, until, revision, variant, shadow)
        return reading.predictions(self._reading, window, page=page, sampled=sampled)

    def find(self, id: str) -> list[Prediction]:  # noqa: A002
        """Return what each revision and variant answered under one id."""
        with self._reading() as connection:
            return reading.find(connection, id)

    def labelled(
        self,
        since: float | None = None,
        until: float | None = None,
        *,
        revision: str | None = None,
        variant: str | None = None,
        shadow: bool | None = None,
        page: int = 1000,
    ) -> Iterator[Labelled]:
        """Yield each labelled row of the predictions in a window, oldest first, with the label that holds now."""
        window = reading.Window(since, until, revision, variant, shadow)
        return reading.labelled(self._reading, window, page=page)

    def after(self, position: Position = START, limit: int = 5000) -> News:
        """Return what came in since ``position``, each prediction and each labelled row once, in columns by source.

        At most ``limit`` predictions and ``limit`` labels; ``News.position`` is where the next call goes on. A label
        that was there before its prediction comes with the prediction; only the first label of a row comes at all.
        """
        with self._reading() as connection:
            return following.after(connection, position, limit)

    def head(self) -> Position:
        """Return the largest sequences ever given to a prediction and to a label; a purge doesn't lower them."""
        with self._reading() as connection:
            return following.head(connection)

    def counts(self) -> dict[str, int]:
        """Return {predictions, labels, early}: rows in the store, labels that hold, those without a prediction yet."""
        with self._reading() as connection:
            return reading.counts(connection)

    def sources(self) -> list[tuple[str, str, bool, int, float, float]]:
        """Return (revision, variant, shadow, predictions, first time, last time) for each source of predictions."""
        with self._reading() as connection:
            return reading.sources(connection)

    def purge(
        self,
        *,
        before: float | None = None,
        id: str | None = None,  # noqa: A002
        chunks: int | None = None,
    ) -> dict[str, int]:
        """Delete what is older than ``before`` (Unix seconds), or all under one id; return {predictions, labels}.

        Labels go with their prediction, however late they came; one that never found its prediction goes by its own
        time. ``chunks`` limits how many thousand predictions one call deletes.
        """
        if (before is None) == (id is None):
            raise EventError("purge: give either a time before which all goes, or one id")
        if id is not None:
            return retention.purge_id(self.database, id)
        assert before is not None  # noqa: S101
        return retention.purge_before(self.database, before, chunks)

    def close(self) -> None:
        """Give back the connections."""
        self.database.close()

    @contextmanager
    def _begin(self, kind: Kind) -> Iterator[Connection]:
        if self._was_away:  # another file, or another server's disk, may be there now
            migrate(self.database)
            self._was_away = False
        try:
            with self.database.begin(kind) as connection:
                yield connection
        except EventError as error:
            self._was_away = error.reason in {"unreachable", "failed"}
            raise

    def _reading(self) -> AbstractContextManager[Connection]:
        return self._begin("read")
