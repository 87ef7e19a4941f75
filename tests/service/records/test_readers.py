from __future__ import annotations

import asyncio
import threading

import pytest

from service.records.readers import Readers


@pytest.fixture
def hanging():
    """A place that does not answer before the test ends."""
    place = threading.Event()
    yield place
    place.set()


def test_an_answer_and_an_error_come_through():
    readers = Readers("test", 1)

    def fail() -> None:
        raise LookupError("no such row")

    assert asyncio.run(readers.ask(lambda: 3)) == 3
    with pytest.raises(LookupError):
        asyncio.run(readers.ask(fail))
    assert not readers.are_busy
    readers.close()


def test_a_question_that_hangs_is_given_up_and_its_thread_is_still_busy(hanging):
    readers = Readers("test", 1)

    with pytest.raises(TimeoutError):
        asyncio.run(readers.ask(hanging.wait, within_s=0.01))

    assert readers.are_busy
    readers.close()


def test_a_question_that_was_given_up_before_its_turn_is_never_asked(hanging):
    readers = Readers("test", 1)
    asked: list[int] = []

    for question in (hanging.wait, lambda: asked.append(1)):
        with pytest.raises(TimeoutError):
            asyncio.run(readers.ask(question, within_s=0.01))
    hanging.set()
    asyncio.run(readers.ask(lambda: asked.append(2)))

    assert asked == [2]
    readers.close()
