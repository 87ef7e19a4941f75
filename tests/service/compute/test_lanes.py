from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextlib import ExitStack

import pytest
from starlette.requests import ClientDisconnect

from service.compute.lanes import Lane
from service.compute.tickets import TICKET, RightOfWay, Ticket
from service.telemetry import Telemetry, Trace


@pytest.fixture
def lane():
    lane = Lane("detection", 1, RightOfWay(), Telemetry())
    yield lane
    lane.close()


@pytest.fixture
def no_collector():
    """Only what nobody refers to is freed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Work:
    """Something with a picture in it."""

    def fail(self) -> None:
        raise KeyError("fails")


def test_work_is_done_off_the_event_loop_under_its_ticket(lane):
    ticket = Ticket()

    found = asyncio.run(
        lane.run(lambda: (threading.current_thread().name, TICKET.get()), ticket, Trace("1"))
    )

    assert found[0].startswith("detection")
    assert found[1] is ticket
    assert TICKET.get() is None


def test_a_request_given_up_in_the_queue_never_runs(lane):
    done: list[str] = []

    async def journey() -> None:
        release = threading.Event()
        first = asyncio.create_task(lane.run(release.wait, Ticket(), Trace("first")))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await lane.run(lambda: done.append("late"), Ticket(), Trace("late"))
        release.set()
        await first
        await lane.run(lambda: done.append("next"), Ticket(), Trace("next"))

    asyncio.run(journey())

    assert done == ["next"]


def test_a_worker_stays_taken_until_its_work_is_really_done(lane):
    order: list[str] = []

    async def journey() -> None:
        release = threading.Event()

        def slow() -> None:
            release.wait()
            order.append("abandoned")

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await lane.run(slow, Ticket(), Trace("slow"))
        later = lane.run(lambda: order.append("second"), Ticket(), Trace("second"))
        second = asyncio.create_task(later)
        await asyncio.sleep(0.05)
        assert order == []
        release.set()
        await second

    asyncio.run(journey())

    assert order == ["abandoned", "second"]


def test_work_whose_visit_ended_before_a_thread_began_it_is_not_begun(lane):
    ticket, done = Ticket(), []
    ticket.end()

    with pytest.raises(ClientDisconnect):
        asyncio.run(lane.run(lambda: done.append("late"), ticket, Trace("1")))

    assert done == []


@pytest.mark.usefixtures("no_collector")
def test_work_that_failed_is_let_go_of_without_the_garbage_collector(lane):
    async def journey() -> weakref.ref[Work]:
        work = Work()
        with pytest.raises(KeyError):
            await lane.run(work.fail, Ticket(), Trace("1"))
        return weakref.ref(work)

    work = asyncio.run(journey())

    assert work() is None


def test_the_time_in_the_queue_is_measured(lane):
    async def journey() -> float:
        release = threading.Event()
        first = asyncio.create_task(lane.run(release.wait, Ticket(), Trace("first")))
        await asyncio.sleep(0)
        trace = Trace("second")
        second = asyncio.create_task(lane.run(lambda: None, Ticket(), trace))
        await asyncio.sleep(0.05)
        release.set()
        await asyncio.gather(first, second)
        return trace.timings_ms["queue"]

    assert asyncio.run(journey()) >= 45.0


def test_what_waits_takes_as_long_as_visits_took_lately(lane):
    async def journey() -> tuple[float, float, float]:
        idle_s = lane.wait_s
        ticket = Ticket()
        with lane.visit(ticket):
            for _ in range(4):
                await lane.run(lambda: threading.Event().wait(0.03), ticket, Trace("1"))
            ticket.end()
        await asyncio.sleep(0.01)
        after_one_s = lane.wait_s
        with ExitStack() as inside:
            for _ in range(4):
                inside.enter_context(lane.visit(Ticket()))
            return idle_s, after_one_s, lane.wait_s / after_one_s

    idle_s, after_one_s, ratio = asyncio.run(journey())

    assert idle_s == 0.0
    assert after_one_s >= 0.12
    assert ratio == pytest.approx(3.0)


def test_a_visit_that_was_given_up_is_learnt_from_when_its_work_ends(lane):
    async def journey() -> tuple[float, float]:
        release, ticket = threading.Event(), Ticket()
        with lane.visit(ticket), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await lane.run(release.wait, ticket, Trace("1"))
        ticket.end()
        before_s = lane.wait_s
        release.set()
        await lane.run(lambda: None, Ticket(), Trace("2"))
        return before_s, lane.wait_s

    before_s, after_s = asyncio.run(journey())

    assert before_s == 0.0
    assert after_s >= 0.05


def test_bulk_work_begins_when_the_detections_are_done():
    way, order = RightOfWay(), []
    telemetry = Telemetry()
    detections, bulk = Lane("detection", 1, way, telemetry), Lane("bulk", 1, way, telemetry)

    async def journey() -> None:
        release = threading.Event()
        way.wait_turn(lambda: False)
        ticket = Ticket("bulk", way=way)
        works = [
            detections.run(
                lambda: (release.wait(), order.append("detection")), Ticket(), Trace("1")
            ),
            detections.run(lambda: order.append("waiting detection"), Ticket(), Trace("2")),
            bulk.run(lambda: order.append("bulk"), ticket, Trace("3")),
        ]
        begun = [asyncio.create_task(work) for work in works]
        await asyncio.sleep(0.05)
        release.set()
        await asyncio.gather(*begun)

    asyncio.run(journey())

    assert order == ["detection", "waiting detection", "bulk"]
    detections.close()
    bulk.close()
