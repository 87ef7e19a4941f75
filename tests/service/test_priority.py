from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.priority import BEHIND, go_behind


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="threads share a niceness here")
def test_a_thread_goes_behind_with_those_that_it_starts_and_no_other():
    before = niceness()
    with ThreadPoolExecutor(1, initializer=go_behind) as pool:
        inside = pool.submit(niceness).result()
        with pool.submit(ThreadPoolExecutor, 1).result() as started_here:
            outside = started_here.submit(niceness).result()  # its thread is of this one

        def start_there() -> int:
            with ThreadPoolExecutor(1) as started_there:
                return started_there.submit(niceness).result()

        beyond = pool.submit(start_there).result()

    assert (inside, beyond) == (before + BEHIND, before + BEHIND)
    assert (outside, niceness()) == (before, before)


@pytest.mark.skipif(sys.platform != "linux", reason="threads share a niceness here")
def test_all_that_computes_for_a_service_goes_behind_its_event_loop(client):
    engine = client.app.state.engine
    lanes = [pool for lane in engine._lanes.values() for pool in [lane._pool]]

    told = [pool.submit(niceness).result() for pool in (*lanes, engine._spreading)]

    assert told == [niceness() + BEHIND] * len(told)
