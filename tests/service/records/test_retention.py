from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from service.records.database import STEP, Database
from service.records.retention import Retention
from service.settings import Settings
from tests.places import inspection


def test_what_is_too_old_goes_in_steps_and_the_rest_stays(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'records.db'}")
    now = datetime.now(UTC)
    new = inspection(time=now - timedelta(days=2))
    old = [inspection(time=now - timedelta(days=4)) for _ in range(STEP + 1)]
    database.write([*old, new])

    retention = Retention(database, Settings(retention_days=3))
    deadline_s = time.monotonic() + 20
    while len(left := database.page({}, {}, 10)) > 1 and time.monotonic() < deadline_s:
        time.sleep(0.02)
    retention.stop()

    assert [row.id for row in left] == [new.id]
    database.close()


def test_without_an_age_everything_stays(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'records.db'}")
    database.write([inspection(time=datetime(2001, 1, 1, tzinfo=UTC))])

    retention = Retention(database, Settings())
    retention.stop()

    assert len(database.page({}, {}, 10)) == 1
    database.close()
