"""The inspection log and the kept answers in SQL: SQLite or Postgres, by URL."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, delete, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError

from service.records.inspections import InspectionOut
from service.records.outboxes import Away, Refused
from service.records.replays import Claim, Kept
from service.records.tables import ANSWERS, INSPECTIONS, migrate

STEP = 500
"""Rows that are deleted at once, so that nobody waits for long."""
POSTGRES = {
    "connect_timeout": 3,
    "tcp_user_timeout": 10_000,
    "options": "-c statement_timeout=10000",
}
"""A server that stops answering is away, not slow."""
QUERY_CANCELED = "57014"
"""Postgres' word for a statement that took longer than that, or that its keeper ended."""
DRIVERS = ("sqlite", "postgresql", "postgresql+psycopg")
INSERT: dict[str, Callable[[Table], Any]] = {
    "postgresql": postgresql.insert,
    "sqlite": sqlite.insert,
}


class TookTooLong(Away):
    """The database ended the statement."""


class Database:
    """The rows of a service, from any thread. Every method's errors: Away.

    Nothing is asked before the first use, so that a database that is away keeps no service from
    starting. What comes back may be an older one or empty: its tables are looked after anew.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._is_prepared = False
        self._preparing = threading.Lock()

    def write(self, inspections: Sequence[InspectionOut]) -> None:
        """Add rows; one that is there already stays as it is."""
        with self._transaction() as db:
            insert = INSERT[db.dialect.name](INSPECTIONS).on_conflict_do_nothing()
            db.execute(insert, [one.model_dump() for one in inspections])

    def page(
        self, equal: Mapping[str, str], bounds: Mapping[str, Any], limit: int
    ) -> list[InspectionOut]:
        """The newest rows with these values. bounds: `since`, `until`, and `after`, an id."""
        kept_in = {
            "since": INSPECTIONS.c.time.__ge__,
            "until": INSPECTIONS.c.time.__lt__,
            "after": INSPECTIONS.c.id.__lt__,
        }
        rows = (
            select(INSPECTIONS)
            .where(*(INSPECTIONS.c[name] == value for name, value in equal.items()))
            .where(*(kept_in[name](value) for name, value in bounds.items()))
            .order_by(INSPECTIONS.c.id.desc())
            .limit(limit)
        )
        with self._transaction() as db:
            return [InspectionOut.model_validate(dict(row)) for row in db.execute(rows).mappings()]

    def find(self, id: str) -> InspectionOut | None:
        """One row."""
        with self._transaction() as db:
            row = db.execute(select(INSPECTIONS).where(INSPECTIONS.c.id == id)).mappings().first()
            return InspectionOut.model_validate(dict(row)) if row else None

    def forget_inspections(self, before: datetime) -> int:
        """Delete some that are older, and say how many."""
        old = select(INSPECTIONS.c.id).where(INSPECTIONS.c.time < before).limit(STEP)
        return self._forget(INSPECTIONS, INSPECTIONS.c.id.in_(old))

    def keep_answers(self, answers: Sequence[Kept]) -> None:
        """Add answers, each in place of an older one under its key.

        Errors: also Refused, where they take too long: they are not worth a second try.
        """
        rows = [
            {
                "key": one.claim.key,
                "request": one.claim.request,
                "media_type": one.media_type,
                "body": one.body,
                "size": len(one.body),
                "until_s": one.until_s,
            }
            for one in answers
        ]
        try:
            with self._transaction() as db:
                insert = INSERT[db.dialect.name](ANSWERS)
                newer = {name: insert.excluded[name] for name in rows[0]}
                db.execute(insert.on_conflict_do_update(index_elements=["key"], set_=newer), rows)
        except TookTooLong as error:
            raise Refused(str(error)) from None

    def find_answer(self, key: str) -> Kept | None:
        """The answer under a key, however old."""
        with self._transaction() as db:
            row = db.execute(select(ANSWERS).where(ANSWERS.c.key == key)).first()
            claim = Claim(key, row.request) if row else None
            return Kept(claim, row.media_type, row.body, row.until_s) if row and claim else None

    def forget_answers(self, now_s: float, max_bytes: int) -> int:
        """Delete some that are over or, oldest first, beyond so many bytes; say how many."""
        newer = func.sum(ANSWERS.c.size).over(order_by=(ANSWERS.c.until_s.desc(), ANSWERS.c.key))
        sums = select(ANSWERS.c.key, ANSWERS.c.until_s, newer.label("total")).subquery()
        is_over = (sums.c.until_s <= now_s) | (sums.c.total > max_bytes)
        return self._forget(
            ANSWERS, ANSWERS.c.key.in_(select(sums.c.key).where(is_over).limit(STEP))
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    def _forget(self, table: Table, which: Any) -> int:
        with self._transaction() as db:
            return db.execute(delete(table).where(which)).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            self._prepare()
            with self._engine.begin() as db:
                yield db
        except (DataError, IntegrityError):
            raise
        except (SQLAlchemyError, sqlite3.Error) as error:
            self._is_prepared = False
            cause = getattr(error, "orig", None)
            is_canceled = getattr(cause, "sqlstate", None) == QUERY_CANCELED
            raise (TookTooLong if is_canceled else Away)(_reason(error)) from None

    def _prepare(self) -> None:
        """Connect first: nobody waits for a connection that another one waits for."""
        if self._is_prepared:
            return
        with self._engine.connect() as db, self._preparing, db.begin():
            if not self._is_prepared:
                migrate(db)
        self._is_prepared = True


def open_engine(url: str) -> Engine:
    """Errors: ValueError, which repeats nothing of the URL: it may hold a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("SERVICE_DATABASE is no database URL") from None
    kind = parsed.get_backend_name()
    is_in_memory = kind == "sqlite" and parsed.database in (None, "", ":memory:")
    if parsed.drivername not in DRIVERS or is_in_memory:
        raise ValueError(
            "SERVICE_DATABASE is sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        )
    options = POSTGRES if kind == "postgresql" else {"timeout": 5.0}
    engine = create_engine(parsed, connect_args=options, pool_pre_ping=True, hide_parameters=True)
    if kind == "sqlite":
        event.listen(engine, "connect", _write_ahead)
    return engine


def _write_ahead(connection: Any, _: object) -> None:
    """Readers and the writer do not wait for each other; a lost machine loses the last rows."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _reason(error: Exception) -> str:
    """The driver's own words, without the statement and its rows."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return f"{type(cause).__name__}: {cause}".splitlines()[0][:300]
