"""The tables, and how an older database becomes this one: a list of functions, done in order.

Alembic would bring a second way to describe a table, a folder of scripts and a command to run; two
tables need none of it.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    DateTime,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from service.records.inspections import REFERENCES

DOCUMENT = JSON().with_variant(JSONB(), "postgresql")
METADATA = MetaData()
INSPECTIONS = Table(
    "inspections",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("request_id", String(128), nullable=False),
    Column("time", DateTime(timezone=True), nullable=False, index=True),
    *(Column(name, String(128)) for name in REFERENCES),
    Column("product", String, nullable=False),
    Column("version", String, nullable=False),
    Column("bundle", String(64), nullable=False),
    Column("verdict", String(8), nullable=False),
    Column("decision", String(8), nullable=False),
    Column("defects", DOCUMENT, nullable=False),
    Column("image", DOCUMENT, nullable=False),
    Column("timings_ms", DOCUMENT, nullable=False),
    Column("parameters", DOCUMENT, nullable=False),
    *(Index(f"ix_inspections_{name}", name, "id") for name in ("request_id", *REFERENCES)),
)
ANSWERS = Table(
    "kept_answers",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("request", String(64), nullable=False),
    Column("media_type", String, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("size", Integer, nullable=False),
    Column("until_s", Float(53), nullable=False, index=True),
)
DONE = Table("migrations", METADATA, Column("number", Integer, primary_key=True))
ONE_AT_A_TIME = 0x666C6177
"""Name of the lock that services take which start on one Postgres at the same moment."""


def migrate(db: Connection) -> None:
    """Make the tables what this version of the service needs, whatever they are."""
    if db.dialect.name == "postgresql":
        db.execute(select(func.pg_advisory_xact_lock(ONE_AT_A_TIME)))
    db.execute(text("CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY)"))
    done = set(db.scalars(select(DONE.c.number)))
    for number, migration in enumerate(MIGRATIONS, start=1):
        if number not in done:
            migration(db)
            db.execute(DONE.insert().values(number=number))


def make_first_tables(db: Connection) -> None:
    """As of the first release. A later change is a function of its own, never a change here."""
    METADATA.create_all(db, [INSPECTIONS, ANSWERS])


MIGRATIONS: list[Callable[[Connection], None]] = [make_first_tables]
