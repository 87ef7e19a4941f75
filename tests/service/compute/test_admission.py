from __future__ import annotations

from contextlib import ExitStack

import pytest
from prometheus_client import generate_latest

from service.compute.admission import Door, ServiceBusy, ServiceDraining
from service.telemetry import Telemetry


def door(wait_s=0.0, **changes):
    given = {"places": {"detection": 2, "bulk": 1}, "max_decoded_bytes": 100, **changes}
    return Door(**given, wait_s=lambda _: wait_s, telemetry=Telemetry())


def test_one_more_than_there_are_places_is_refused():
    full = door()
    with ExitStack() as inside:
        for _ in range(2):
            inside.enter_context(full.place("detection"))

        with pytest.raises(ServiceBusy), full.place("detection"):
            pass


def test_bulk_work_takes_no_place_of_a_detection():
    both = door()

    with both.place("bulk"):
        with pytest.raises(ServiceBusy), both.place("bulk"):
            pass
        with both.place("detection"), both.place("detection"):
            pass


def test_a_place_is_free_again_after_a_failure():
    one = door()
    for _ in range(5):
        with pytest.raises(KeyError), one.place("bulk"):
            raise KeyError

    with one.place("bulk"):
        pass


@pytest.mark.parametrize(("wait_s", "told_s"), [(0.0, 1), (0.2, 1), (1.01, 2), (7.0, 7)])
def test_who_is_refused_learns_when_what_waits_will_be_done(wait_s, told_s):
    full = door(wait_s, places={"detection": 0})

    with pytest.raises(ServiceBusy) as refusal, full.place("detection"):
        pass

    assert refusal.value.retry_after_s == told_s


def test_pictures_are_let_in_while_their_bytes_fit():
    one = door()
    with one.memory(60, "detection"):
        with pytest.raises(ServiceBusy), one.memory(41, "bulk"):
            pass
        with one.memory(40, "detection"):
            pass

    with one.memory(100, "bulk"):
        pass


def test_one_picture_alone_is_always_let_in():
    one = door()

    with one.memory(1000, "detection"), pytest.raises(ServiceBusy), one.memory(1, "detection"):
        pass


def test_the_bytes_inside_are_a_metric():
    telemetry = Telemetry()
    one = Door({"bulk": 1}, 100, lambda _: 0.0, telemetry)

    with one.memory(60, "bulk"):
        assert b"flawsmith_decoded_bytes 60.0" in generate_latest(telemetry.registry)

    assert b"flawsmith_decoded_bytes 0.0" in generate_latest(telemetry.registry)


def test_a_draining_door_lets_nobody_in_but_keeps_its_guests():
    closing = door()
    with closing.place("detection"):
        closing.drain()

        assert not closing.is_drained(drain_s=60.0)
        with pytest.raises(ServiceDraining), closing.place("bulk"):
            pass

    assert closing.is_drained(drain_s=60.0)


def test_draining_ends_when_its_time_is_over():
    closing = door()
    with closing.place("detection"):
        closing.drain()

        assert closing.is_drained(drain_s=0.0)
