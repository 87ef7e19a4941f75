from __future__ import annotations

import threading
import time

import pytest

from models.errors import DeviceLost
from service.compute.failures import Failures


class Trial:
    """Something to try, which fails until it is mended."""

    def __init__(self):
        self.is_mended = threading.Event()
        self.tried = threading.Semaphore(0)

    def run(self):
        self.tried.release()
        if not self.is_mended.is_set():
            raise DeviceLost("still gone")


@pytest.fixture
def failures():
    failures = Failures(every_s=0.01)
    yield failures
    failures.close()


def wait_until(is_so):
    ends_s = time.monotonic() + 10.0
    while not is_so():
        assert time.monotonic() < ends_s
        time.sleep(0.002)


def test_what_fails_is_named_until_a_trial_succeeds(failures):
    trial = Trial()
    failures.note("tiny 1 segmenter", trial.run)
    for _ in range(3):
        assert trial.tried.acquire(timeout=10.0)
    assert failures.names == ["tiny 1 segmenter"]

    trial.is_mended.set()

    wait_until(lambda: failures.names == [])


def test_what_fails_twice_is_tried_once(failures):
    trial = Trial()

    failures.note("one", trial.run)
    failures.note("one", trial.run)

    trials = [thread for thread in threading.enumerate() if thread.name == "trials"]
    assert len(trials) == 1
    assert failures.names == ["one"]


def test_what_is_unloaded_is_forgotten(failures):
    trial = Trial()
    failures.note("one", trial.run)
    assert trial.tried.acquire(timeout=10.0)

    del trial

    wait_until(lambda: failures.names == [])


def test_one_that_is_mended_leaves_the_other_failing(failures):
    one, other = Trial(), Trial()
    failures.note("one", one.run)
    failures.note("other", other.run)

    one.is_mended.set()

    wait_until(lambda: failures.names == ["other"])


def test_it_knows_the_devices_that_fail(failures):
    one, other = Trial(), Trial()
    failures.note("one", one.run, 0)
    failures.note("one", other.run, 2)
    both = failures.devices

    other.is_mended.set()

    assert both == {0, 2}
    wait_until(lambda: failures.devices == {0})


def test_trials_end_with_the_service():
    failures, trial = Failures(every_s=60.0), Trial()
    failures.note("one", trial.run)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "trials"]

    failures.close()

    thread.join(10.0)
    assert not thread.is_alive()
