from __future__ import annotations

import threading
import time

import pytest
from starlette.requests import ClientDisconnect

from service.compute.tickets import PATIENCE_S, RightOfWay, Ticket


def never():
    return False


def test_a_ticket_that_was_given_up_does_not_go_on():
    ticket = Ticket()
    ticket.go_on()
    ticket.end()

    with pytest.raises(ClientDisconnect):
        ticket.go_on()


def test_bulk_work_waits_until_the_detection_is_done():
    way, order = RightOfWay(), []
    way.wait_turn(never)
    with way.detection():
        bulk = threading.Thread(target=lambda: (way.wait_turn(never), order.append("bulk")))
        bulk.start()
        bulk.join(0.05)
        order.append("detection")
    bulk.join()

    assert order == ["detection", "bulk"]


def test_among_detections_without_end_bulk_work_begins_one_step_in_its_patience():
    way, begun = RightOfWay(patience_s=0.1), []
    way.wait_turn(never)
    started_s = time.monotonic()

    def take_turns():
        way.wait_turn(never)
        begun.append(time.monotonic())

    with way.detection():
        threads = [threading.Thread(target=take_turns) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    first, second = sorted(begun)
    assert first - started_s >= 0.09
    assert second - first >= 0.09


def test_without_detections_bulk_work_goes_on_at_once():
    way = RightOfWay()
    started_s = time.monotonic()

    for _ in range(20):
        way.wait_turn(never)

    assert time.monotonic() - started_s < PATIENCE_S


def test_who_is_given_up_while_he_waits_is_let_go():
    ticket = Ticket("bulk")
    ticket.go_on()
    ticket.end()

    with ticket.way.detection(), pytest.raises(ClientDisconnect):
        ticket.go_on()


def test_a_detection_does_not_wait_for_others():
    ticket = Ticket("detection")
    started_s = time.monotonic()

    with ticket.way.detection(), ticket.way.detection():
        for _ in range(3):
            ticket.go_on()

    assert time.monotonic() - started_s < PATIENCE_S


def test_what_a_visit_let_into_memory_counts_until_its_last_work_is_done():
    ticket, freed = Ticket(), []
    ticket.cargo.callback(freed.append, "bytes")

    with ticket.at_work():
        ticket.end()
        assert freed == []

    assert freed == ["bytes"]


def test_what_a_visit_let_into_memory_stays_between_two_works():
    ticket, freed = Ticket(), []
    ticket.cargo.callback(freed.append, "bytes")
    with ticket.at_work():
        pass
    assert freed == []

    ticket.end()

    assert freed == ["bytes"]
