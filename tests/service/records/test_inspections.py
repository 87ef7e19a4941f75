from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime

from service.records.inspections import Record
from tests.places import inspection


def test_a_time_without_a_zone_is_utc():
    assert inspection(time=datetime(2026, 3, 1)).time == datetime(2026, 3, 1, tzinfo=UTC)


def test_a_message_is_the_record_in_an_envelope():
    one = inspection(part_id="A")

    message = json.loads(Record.of(one).message)

    assert message["type"] == "inspection.answered"
    assert message["data"] == one.model_dump(mode="json")
    assert message["timestamp"] == message["data"]["time"]


def test_a_record_is_the_inspection_that_it_was_made_of():
    one = inspection(part_id="A-1", parameters={"n": 3, "min_score": 0.1})

    record = Record.of(one)

    assert record.inspection() == one
    assert (record.id, record.product, record.verdict) == (one.id, "tiny", "ok")


def test_a_record_takes_the_memory_that_it_is_counted_with():
    one = inspection(parameters={"points": [[x + 0.5, x + 0.25] for x in range(2000)]})
    Record.of(one)
    tracemalloc.start()

    records = [Record.of(one.model_copy(deep=True)) for _ in range(10)]
    taken_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken_bytes <= 1.1 * sum(record.size_bytes for record in records)
