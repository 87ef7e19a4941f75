from __future__ import annotations

import logging
import threading
import time

import pytest
from prometheus_client import generate_latest

from service.records.outboxes import Away, Outbox, Refused, close
from service.telemetry import Telemetry


class Place:
    """Takes batches while it is there; refuses what it is told to."""

    def __init__(self, *, is_there: bool = True, refuses: str = "") -> None:
        self.is_there = is_there
        self.refuses = refuses
        self.got: list[str] = []
        self.tries = 0
        self.batches: list[int] = []
        self.changed = threading.Condition()

    def take(self, items: list[str]) -> None:
        with self.changed:
            self.tries += 1
            self.changed.notify_all()
            if not self.is_there:
                raise Away("nobody answers")
            if self.refuses in items:
                raise Refused("not this one")
            self.got += items
            self.batches.append(len(items))

    def wait(self, condition) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout=20)


@pytest.fixture
def opened():
    """Make an outbox to a place; it ends with the test."""
    boxes: list[Outbox[str]] = []

    def make(place: Place, *, max_bytes: int = 1000, batch: int = 1, telemetry=None):
        boxes.append(
            Outbox("shelf", place.take, telemetry or Telemetry(), max_bytes=max_bytes, batch=batch)
        )
        return boxes[-1]

    yield make
    close(boxes, 5.0)


def metric(telemetry: Telemetry, line: str) -> bool:
    return line in generate_latest(telemetry.registry).decode().splitlines()


def test_what_is_put_in_arrives_in_order(opened):
    place = Place()
    outbox = opened(place)

    for item in "abc":
        outbox.put(item, 1)
    close([outbox], 5.0)

    assert place.got == ["a", "b", "c"]


def test_what_waits_goes_in_batches(opened):
    place = Place(is_there=False)
    outbox = opened(place, batch=2)
    for item in "abcde":
        outbox.put(item, 1)
    place.wait(lambda: place.tries > 0)

    place.is_there = True
    place.wait(lambda: len(place.got) == 5)

    assert place.got == list("abcde")
    assert max(place.batches) == 2


def test_a_place_that_goes_and_returns_gets_everything_and_is_told_of_twice(opened, caplog):
    place, telemetry = Place(is_there=False), Telemetry()
    outbox = opened(place, telemetry=telemetry)
    with caplog.at_level(logging.WARNING, "service"):
        for item in "abc":
            outbox.put(item, 1)
        place.wait(lambda: place.tries > 1)
        is_away = metric(telemetry, 'flawsmith_outbox_away{place="shelf"} 1.0')
        place.is_there = True
        place.wait(lambda: len(place.got) == 3)
        close([outbox], 5.0)

    assert is_away
    assert place.got == ["a", "b", "c"]
    assert [record.getMessage() for record in caplog.records] == [
        "shelf is away, what it should get waits: nobody answers",
        "shelf is back",
    ]
    assert metric(telemetry, 'flawsmith_outbox_away{place="shelf"} 0.0')
    assert metric(telemetry, 'flawsmith_outbox_waiting{place="shelf"} 0.0')
    assert metric(telemetry, 'flawsmith_outbox_delivered_total{place="shelf"} 3.0')


def test_what_does_not_fit_is_dropped_counted_and_told_of_once(opened, caplog):
    place, telemetry = Place(is_there=False), Telemetry()
    outbox = opened(place, max_bytes=20, telemetry=telemetry)

    with caplog.at_level(logging.ERROR, "service"):
        for item in "abcd":
            outbox.put(item, 10)

    full = [record for record in caplog.records if "full" in record.getMessage()]
    assert len(full) == 1
    assert metric(telemetry, 'flawsmith_outbox_dropped_total{place="shelf",reason="full"} 2.0')
    place.is_there = True
    place.wait(lambda: place.got == ["a", "b"])


def test_one_that_is_refused_does_not_hold_up_the_others(opened):
    place, telemetry = Place(is_there=False, refuses="b"), Telemetry()
    outbox = opened(place, batch=4, telemetry=telemetry)
    for item in "abcd":
        outbox.put(item, 1)

    place.is_there = True
    place.wait(lambda: place.got == ["a", "c", "d"])

    close([outbox], 5.0)
    assert metric(telemetry, 'flawsmith_outbox_dropped_total{place="shelf",reason="refused"} 1.0')


def test_whoever_puts_in_never_waits_for_the_place(opened):
    gate = threading.Event()

    class Slow(Place):
        def take(self, items: list[str]) -> None:
            gate.wait(20)
            super().take(items)

    place = Slow()
    outbox = opened(place)

    for item in "abc":
        outbox.put(item, 1)
    delivered_before = list(place.got)
    gate.set()
    place.wait(lambda: len(place.got) == 3)

    assert delivered_before == []


def test_at_the_end_a_place_that_is_away_is_tried_once_more_and_the_rest_is_counted(opened):
    place, telemetry = Place(is_there=False), Telemetry()
    outbox = opened(place, telemetry=telemetry)
    outbox.put("a", 1)
    place.wait(lambda: place.tries > 0)
    started_s = time.monotonic()

    close([outbox], 10.0)

    assert time.monotonic() - started_s < 5
    assert metric(telemetry, 'flawsmith_outbox_dropped_total{place="shelf",reason="stopped"} 1.0')
