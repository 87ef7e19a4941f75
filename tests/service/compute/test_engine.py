from __future__ import annotations

import asyncio
import threading
import time
from contextlib import AsyncExitStack, ExitStack

import numpy as np
import pytest

from models.errors import DeviceLost
from service.compute.admission import ServiceBusy, ServiceDraining
from service.compute.engine import AHEAD, Engine
from service.compute.tickets import Ticket
from service.settings import Settings
from service.telemetry import Telemetry, Trace

LANES = ["detection", "bulk"]


def engine_of(**settings):
    defaults = {"workers": 1, "bulk_workers": 1, "queue_size": 2}
    return Engine(Settings(**{**defaults, **settings}), Telemetry())


@pytest.fixture
def engine():
    engine = engine_of()
    yield engine
    engine.close()


@pytest.mark.parametrize("lane", LANES)
def test_one_more_than_workers_and_queue_is_refused(engine, lane):
    with ExitStack() as inside:
        for _ in range(3):
            inside.enter_context(engine.visit(lane))

        with pytest.raises(ServiceBusy), engine.visit(lane):
            pass


def test_bulk_work_has_threads_of_its_own(engine):
    async def journey() -> list[str]:
        release = threading.Event()
        with engine.visit("detection") as one, engine.visit("bulk") as other:
            occupant = asyncio.create_task(engine.run(release.wait, other, Trace("1")))
            where = await engine.run(lambda: threading.current_thread().name, one, Trace("2"))
            release.set()
            await occupant
        return where

    assert asyncio.run(journey()).startswith("detection")


def test_the_least_busy_device_takes_a_visit():
    engine = engine_of(device_ids="0,1", workers=2)

    with engine.visit("detection") as first, engine.visit("detection") as second:
        with engine.visit("bulk") as bulk:
            assert {first.device, second.device} == {0, 1}
            assert bulk.device == 0
        assert first.way is not second.way
    with engine.visit("detection") as third:
        assert third.device == 0
    engine.close()


@pytest.mark.parametrize(("workers", "seats"), [(1, 1), (2, 1), (3, 2)])
def test_audits_leave_one_of_several_workers_free(workers, seats):
    engine = engine_of(workers=workers)

    async def journey() -> list[bool]:
        async with AsyncExitStack() as inside:
            waits = [False] * (seats + 1)
            audits = [engine.audit(Ticket(), can_wait=one) for one in waits]
            told = [await inside.enter_async_context(one) for one in audits]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), engine.audit(Ticket(), can_wait=True):
                    pass
        async with engine.audit(Ticket(), can_wait=False) as later:
            return [*told, later]

    assert asyncio.run(journey()) == [*[True] * seats, False, True]
    engine.close()


def test_two_devices_work_side_by_side():
    engine = engine_of(device_ids="0,1")
    both = threading.Barrier(2, timeout=10.0)

    async def journey() -> None:
        with engine.visit("detection") as first, engine.visit("detection") as second:
            runs = [engine.run(both.wait, one, Trace("1")) for one in (first, second)]
            await asyncio.gather(*runs)

    asyncio.run(journey())

    engine.close()


def test_two_devices_have_places_for_the_work_of_both():
    engine = engine_of(device_ids="0,1", queue_size=0)

    with ExitStack() as inside:
        for _ in range(2):
            inside.enter_context(engine.visit("detection"))
        with pytest.raises(ServiceBusy), engine.visit("detection"):
            pass
    engine.close()


def test_pictures_that_do_not_fit_are_refused_until_others_have_left():
    engine = engine_of(max_decoded_bytes=100)

    with engine.visit("detection") as first, engine.visit("bulk") as second:
        engine.load(first, 70)
        with pytest.raises(ServiceBusy):
            engine.load(second, 31)
        engine.load(second, 30)
    with engine.visit("detection") as third:
        engine.load(third, 500)
    engine.close()


def test_a_picture_given_up_stays_counted_while_its_worker_has_it():
    engine = engine_of(max_decoded_bytes=100)

    async def journey() -> None:
        release = threading.Event()
        with engine.visit("detection") as first:
            engine.load(first, 100)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await engine.run(release.wait, first, Trace("1"))
        with engine.visit("bulk") as second:
            with pytest.raises(ServiceBusy):
                engine.load(second, 1)
            release.set()
            await asyncio.sleep(0.05)
            engine.load(second, 1)

    asyncio.run(journey())

    engine.close()


def test_works_on_items_are_done_in_other_threads_and_come_in_order(engine):
    def slow_first(item):
        time.sleep(0.05 if item == 0 else 0)
        return item, threading.current_thread().name

    spread = list(engine.spread(range(9), Ticket("bulk"), slow_first, str))

    assert [item for item, _ in spread] == list(range(9))
    assert [works[0].result()[0] for _, works in spread] == list(range(9))
    assert [works[1].result() for _, works in spread] == [str(item) for item in range(9)]
    assert all(works[0].result()[1].startswith("spread") for _, works in spread)


def test_only_a_few_items_are_made_ahead(engine):
    made = []

    spread = engine.spread((made.append(item) or item for item in range(50)), Ticket(), str)
    next(spread)

    assert made == list(range(AHEAD))


def test_a_work_that_fails_is_told_where_its_item_comes(engine):
    first, second = engine.spread(["1", "x"], Ticket(), int)

    assert first[1][0].result() == 1
    with pytest.raises(ValueError, match="x"):
        second[1][0].result()


def test_items_begun_are_handed_out_before_the_failure_of_a_later_one(engine):
    def items():
        yield from range(AHEAD - 1)
        raise KeyError("no further item")

    spread = engine.spread(items(), Ticket(), str)
    seen = [next(spread) for _ in range(AHEAD - 1)]

    assert [(item, works[0].result()) for item, works in seen] == [
        (item, str(item)) for item in range(AHEAD - 1)
    ]
    with pytest.raises(KeyError):
        next(spread)


def test_works_on_items_let_detections_go_first(engine):
    with engine.visit("bulk") as ticket:
        ticket.go_on()
        with ticket.way.detection():
            ((_, (work,)),) = engine.spread([1], ticket, str)
            time.sleep(0.05)
            assert not work.done()
        assert work.result() == "1"


def test_it_is_not_ready_while_a_loaded_graph_fails(engine, tiny):
    is_gone = []

    def device(_, graph):
        def call(**arrays):
            if is_gone:
                raise RuntimeError("gone")
            return graph(**arrays)

        return call

    served = engine.serve(tiny.through(device))
    arrays = {"image": tiny_crop(served)}
    is_gone.append(True)

    async def journey() -> None:
        with engine.visit("detection") as ticket, pytest.raises(DeviceLost):
            await engine.run(lambda: served.detector.segmenter.graph(**arrays), ticket, Trace("1"))
        with pytest.raises(DeviceLost, match="tiny 10 segmenter"):
            engine.require_ready()

    asyncio.run(journey())


def test_a_device_that_fails_gets_no_visit_while_another_runs(tiny):
    engine = engine_of(device_ids="0,1", queue_size=8)
    gone = [threading.Event(), threading.Event()]

    def on(device):
        def wrap(_, graph):
            def call(**arrays):
                if gone[device].is_set():
                    raise RuntimeError("gone")
                return graph(**arrays)

            return call

        return engine.serve(tiny.through(wrap))

    served = [on(0), on(1)]
    arrays = {"image": tiny_crop(served[0])}

    async def answers() -> int:
        with engine.visit("detection") as ticket:
            graph = served[ticket.device].detector.segmenter.graph
            await engine.run(lambda: graph(**arrays), ticket, Trace("1"))
        return ticket.device

    async def journey() -> list[int]:
        gone[0].set()
        with pytest.raises(DeviceLost):
            await answers()
        found = [await answers() for _ in range(3)]
        engine.require_ready()
        gone[1].set()
        with pytest.raises(DeviceLost):
            await answers()
        with pytest.raises(DeviceLost, match="tiny 10 segmenter"):
            engine.require_ready()
        return found

    assert asyncio.run(journey()) == [1, 1, 1]
    engine.close()


def tiny_crop(bundle):
    side_px = bundle.detector.segmenter.side_px
    return np.zeros((1, side_px, side_px, 3), np.uint8)


def test_a_draining_door_lets_nobody_in_but_keeps_its_guests(engine):
    with engine.visit("bulk"):
        engine.drain()

        assert not engine.is_drained(drain_s=60.0)
        with pytest.raises(ServiceDraining), engine.visit("detection"):
            pass
        with pytest.raises(ServiceDraining):
            engine.require_ready()

    assert engine.is_drained(drain_s=60.0)
