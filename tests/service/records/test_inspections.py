from __future__ import annotations

import json
from datetime import UTC, datetime

from tests.places import inspection


def test_a_time_without_a_zone_is_utc():
    assert inspection(time=datetime(2026, 3, 1)).time == datetime(2026, 3, 1, tzinfo=UTC)


def test_a_message_is_the_record_in_an_envelope():
    one = inspection(part_id="A")

    message = json.loads(one.message)

    assert message["type"] == "inspection.answered"
    assert message["data"] == one.model_dump(mode="json")
    assert message["timestamp"] == message["data"]["time"]
