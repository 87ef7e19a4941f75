from __future__ import annotations

import sqlite3
import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, text

from service.records.database import Database, open_engine
from service.records.outboxes import Away, Refused
from service.records.replays import Claim, Kept
from tests.places import Postgres, inspection, wait_for

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """An empty database of either kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'records.db'}"
    else:
        url = request.getfixturevalue("postgres").new_database()
    opened = Database(url)
    yield opened
    opened.close()


def ids(rows) -> list[str]:
    return [row.id for row in rows]


def kept(key: str, size: int = 4, until_s: float = 100.0) -> Kept:
    return Kept(Claim(key, "request"), "application/json", b"x" * size, until_s)


def test_what_is_written_is_found(database):
    one = inspection(part_id="A", parameters={"n": 3})

    database.write([one])

    assert database.find(one.id) == one
    assert database.find("other") is None


def test_a_row_that_is_written_twice_is_there_once(database):
    one, other = inspection(), inspection()
    database.write([one])

    database.write([one, other])

    assert len(database.page({}, {}, 10)) == 2


def test_pages_are_newest_first_and_go_on_where_the_last_one_ended(database):
    rows = [inspection() for _ in range(5)]
    database.write(rows)
    newest_first = sorted(ids(rows), reverse=True)

    first = database.page({}, {}, 2)
    database.write([inspection()])
    rest = database.page({}, {"after": first[-1].id}, 10)

    assert ids(first) + ids(rest) == newest_first


def test_a_page_is_narrowed_by_values_and_times(database):
    rows = [
        inspection(part_id=part, verdict=verdict, time=NOW + timedelta(hours=hour))
        for hour, (part, verdict) in enumerate([("A", "ok"), ("A", "ng"), ("B", "ng")])
    ]
    database.write(rows)

    by_part = database.page({"part_id": "A", "verdict": "ng"}, {}, 10)
    since = database.page({}, {"since": NOW + timedelta(hours=1)}, 10)
    until = database.page({}, {"until": NOW + timedelta(hours=1)}, 10)

    assert ids(by_part) == [rows[1].id]
    assert set(ids(since)) == {rows[1].id, rows[2].id}
    assert ids(until) == [rows[0].id]


def test_old_rows_are_deleted_and_others_stay(database):
    old, new = inspection(time=NOW - timedelta(days=9)), inspection(time=NOW)
    database.write([old, new])

    deleted = database.forget_inspections(NOW - timedelta(days=1))

    assert deleted == 1
    assert ids(database.page({}, {}, 10)) == [new.id]


def test_an_answer_is_found_and_a_newer_one_takes_its_place(database):
    database.keep_answers([kept("a", 4)])

    database.keep_answers([kept("a", 7), kept("b", 1)])

    assert database.find_answer("a") == kept("a", 7)
    assert database.find_answer("c") is None


def test_answers_that_are_over_or_too_many_are_deleted_oldest_first(database):
    database.keep_answers([kept("over", until_s=1.0)])
    database.keep_answers([kept(f"{second}", 10, until_s=float(second)) for second in (5, 6, 7)])

    deleted = database.forget_answers(now_s=2.0, max_bytes=20)

    assert deleted == 2
    left = [key for key in ("over", "5", "6", "7") if database.find_answer(key)]
    assert left == ["6", "7"]


def test_a_database_that_lost_its_tables_gets_them_again(tmp_path):
    file = tmp_path / "records.db"
    database = Database(f"sqlite:///{file}")
    database.write([inspection()])
    with sqlite3.connect(file) as db:
        db.executescript("DROP TABLE inspections; DROP TABLE migrations;")
    db.close()

    with pytest.raises(Away):
        database.write([inspection()])
    database.write([inspection()])

    assert len(database.page({}, {}, 10)) == 1
    database.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "records.db",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://u:secret@h/x",
        "postgresql://u:p@h:secret/x",
    ],
)
def test_a_url_of_another_kind_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match="SERVICE_DATABASE") as refusal:
        open_engine(url)

    assert "secret" not in str(refusal.value)


def test_why_a_database_is_away_is_told_without_its_rows_and_password():
    database = Database("postgresql://somebody:secret@127.0.0.1:9/records")

    with pytest.raises(Away) as away:
        database.write([inspection(part_id="confidential")])

    assert "127.0.0.1" in str(away.value)
    assert "secret" not in str(away.value)
    assert "confidential" not in str(away.value)


@pytest.mark.slow
def test_a_postgres_that_goes_away_and_returns_is_written_to_again(postgres: Postgres):
    database = Database(postgres.new_database())
    before, after = inspection(), inspection()
    database.write([before])

    postgres.stop()
    with pytest.raises(Away):
        database.write([after])
    with pytest.raises(Away):
        database.page({}, {}, 10)
    postgres.start()
    database.write([after])

    assert set(ids(database.page({}, {}, 10))) == {before.id, after.id}
    database.close()


def test_two_services_that_start_on_one_postgres_make_its_tables_once(postgres: Postgres):
    url = postgres.new_database()
    one, other = Database(url), Database(url)

    one.write([inspection()])
    other.write([inspection()])

    engine = create_engine(url)
    with engine.connect() as db:
        assert db.scalar(text("SELECT count(*) FROM migrations")) == 1
    engine.dispose()
    one.close()
    other.close()


def test_an_answer_that_takes_the_database_too_long_is_refused_and_a_row_waits(postgres: Postgres):
    url = postgres.new_database()
    database, errors = Database(url), []
    database.write([inspection()])
    engine = create_engine(url)

    def write() -> None:
        for deliver, item in ((database.keep_answers, kept("a")), (database.write, inspection())):
            try:
                deliver([item])
            except (Away, Refused) as error:
                errors.append(error)

    writing = threading.Thread(target=write)
    keeper_engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as other, keeper_engine.connect() as keeper:
        other.execute(text("LOCK TABLE kept_answers, inspections"))
        writing.start()
        for count in (1, 2):
            wait_for(lambda: keeper.execute(text(CANCEL)).first() is not None)
            wait_for(lambda count=count: len(errors) == count)
    writing.join()

    assert isinstance(errors[0], Refused)
    assert isinstance(errors[1], Away)
    engine.dispose()
    database.close()


CANCEL = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
