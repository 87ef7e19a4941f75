from __future__ import annotations

import asyncio
import threading
import time
from contextlib import ExitStack

import pytest

from models.errors import DeviceLost
from service.engine import AHEAD, LOST_FOR_S, Engine, ServiceBusy, ServiceDraining
from service.telemetry import Telemetry, Trace


@pytest.fixture
def engine():
    engine = Engine(workers=1, queue_size=2, telemetry=Telemetry())
    yield engine
    engine.close()


def test_work_is_done_off_the_event_loop(engine):
    where = asyncio.run(engine.run(threading.current_thread, Trace("1")))

    assert where.name.startswith("engine")


def test_one_more_than_workers_and_queue_is_refused(engine):
    with ExitStack() as inside:
        for _ in range(3):
            inside.enter_context(engine.place())

        with pytest.raises(ServiceBusy), engine.place():
            pass


def test_a_place_is_free_again_after_a_failure(engine):
    for _ in range(5):
        with pytest.raises(KeyError), engine.place():
            raise KeyError

    with engine.place():
        pass


def test_a_request_given_up_in_the_queue_never_runs(engine):
    done: list[str] = []

    async def journey() -> None:
        release = threading.Event()
        first = asyncio.create_task(engine.run(release.wait, Trace("first")))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await engine.run(lambda: done.append("late"), Trace("late"))
        release.set()
        await first
        await engine.run(lambda: done.append("next"), Trace("next"))

    asyncio.run(journey())

    assert done == ["next"]


def test_a_worker_stays_taken_until_its_work_is_really_done(engine):
    order: list[str] = []

    async def journey() -> None:
        release = threading.Event()

        def slow() -> None:
            release.wait()
            order.append("abandoned")

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await engine.run(slow, Trace("slow"))
        second = asyncio.create_task(engine.run(lambda: order.append("second"), Trace("second")))
        await asyncio.sleep(0.05)
        assert order == []
        release.set()
        await second

    asyncio.run(journey())

    assert order == ["abandoned", "second"]


def test_works_on_items_are_done_in_other_threads_and_come_in_order(engine):
    def slow_first(item):
        time.sleep(0.05 if item == 0 else 0)
        return item, threading.current_thread().name

    spread = list(engine.spread(range(9), slow_first, str))

    assert [item for item, _ in spread] == list(range(9))
    assert [works[0].result()[0] for _, works in spread] == list(range(9))
    assert [works[1].result() for _, works in spread] == [str(item) for item in range(9)]
    assert all(works[0].result()[1].startswith("spread") for _, works in spread)


def test_only_a_few_items_are_made_ahead(engine):
    made = []

    spread = engine.spread((made.append(item) or item for item in range(50)), str)
    next(spread)

    assert made == list(range(AHEAD))


def test_a_work_that_fails_is_told_where_its_item_comes(engine):
    first, second = engine.spread(["1", "x"], int)

    assert first[1][0].result() == 1
    with pytest.raises(ValueError, match="x"):
        second[1][0].result()


def test_the_time_in_the_queue_is_measured(engine):
    async def journey() -> float:
        release = threading.Event()
        first = asyncio.create_task(engine.run(release.wait, Trace("first")))
        await asyncio.sleep(0)
        trace = Trace("second")
        second = asyncio.create_task(engine.run(lambda: None, trace))
        await asyncio.sleep(0.05)
        release.set()
        await asyncio.gather(first, second)
        return trace.timings_ms["queue"]

    assert asyncio.run(journey()) >= 45.0


def test_a_lost_device_makes_it_not_ready_until_work_succeeds(engine):
    def lose() -> None:
        raise DeviceLost("gone")

    async def journey() -> None:
        with pytest.raises(DeviceLost):
            await engine.run(lose, Trace("1"))
        with pytest.raises(DeviceLost):
            engine.require_ready()
        await engine.run(lambda: None, Trace("2"))

    asyncio.run(journey())

    engine.require_ready()


def test_a_lost_device_may_be_tried_again_after_its_time():
    now_s = 100.0
    engine = Engine(workers=1, queue_size=0, telemetry=Telemetry(), clock_s=lambda: now_s)

    def lose() -> None:
        raise DeviceLost("gone")

    for _ in range(2):
        with pytest.raises(DeviceLost):
            asyncio.run(engine.run(lose, Trace("1")))
        now_s += LOST_FOR_S - 1.0
        with pytest.raises(DeviceLost):
            engine.require_ready()
        now_s += 1.0
        engine.require_ready()
    engine.close()


def test_a_draining_door_lets_nobody_in_but_keeps_its_guests(engine):
    with engine.place():
        engine.drain()

        assert not engine.is_drained(drain_s=60.0)
        with pytest.raises(ServiceDraining), engine.place():
            pass
        with pytest.raises(ServiceDraining):
            engine.require_ready()

    assert engine.is_drained(drain_s=60.0)


def test_draining_ends_when_its_time_is_over(engine):
    with engine.place():
        engine.drain()

        assert engine.is_drained(drain_s=0.0)
