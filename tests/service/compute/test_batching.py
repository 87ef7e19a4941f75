from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from starlette.requests import ClientDisconnect

from models.bundle import SHIPPED, find_bundle, open_bundle
from models.devices import Device
from service.compute.batching import Batches, Sharing
from tests.tiny import CROP_PX, write_tiny_bundle

TOGETHER = Sharing(most=8, window_s=60.0)
"""A run begins when it is full: the tests send as many rows as fill it."""


def never():
    return False


def crops(*shades):
    """A plain square for each shade of red."""
    pixels = np.zeros((len(shades), CROP_PX, CROP_PX, 3), np.uint8)
    pixels[..., 0] = np.array(shades, np.uint8)[:, None, None]
    return {"image": pixels}


class Counted:
    """A graph that remembers how many rows each of its runs had."""

    def __init__(self, graph):
        self.graph = graph
        self.rows = []

    def __call__(self, **arrays):
        self.rows.append(len(arrays["image"]))
        return self.graph(**arrays)


class Held(Counted):
    """A graph whose first run lasts until it is let go."""

    def __init__(self, graph):
        super().__init__(graph)
        self.is_running = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, **arrays):
        if not self.is_running.is_set():
            self.is_running.set()
            assert self.let_go.wait(10.0)
        return super().__call__(**arrays)


@pytest.fixture
def graph(tiny):
    return Counted(tiny.detector.segmenter.graph)


@pytest.fixture
def held(tiny):
    return Held(tiny.detector.segmenter.graph)


def call_at_once(batches, *calls):
    """Each call in a thread of its own; its outputs or its error."""
    with ThreadPoolExecutor(len(calls)) as threads:
        results = [threads.submit(batches.run, arrays, never) for arrays in calls]
    return [result.exception() or result.result() for result in results]


def test_calls_that_come_in_the_window_share_one_run(graph):
    batches = Batches(graph, TOGETHER)

    answers = call_at_once(batches, crops(10, 20, 30), crops(200), crops(90, 80, 70, 60))

    assert graph.rows == [8]
    for (logits,), arrays in zip(answers, [crops(10, 20, 30), crops(200)], strict=False):
        np.testing.assert_array_equal(logits, graph.graph(**arrays)[0])


def test_without_a_window_a_run_takes_what_waits_and_no_more(held):
    batches = Batches(held, Sharing(most=8, at_once=1))
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(batches.run, crops(1), never)
        assert held.is_running.wait(10.0)
        later = [threads.submit(batches.run, crops(shade), never) for shade in (2, 3, 4)]
        wait_until_waiting(batches, 3)
        held.let_go.set()
        first.result()
        for shade, answer in zip((2, 3, 4), later, strict=True):
            np.testing.assert_array_equal(answer.result()[0], held.graph(**crops(shade))[0])

    assert held.rows == [1, 3]


def wait_until_waiting(batches, count):
    while len(batches._waiting) < count:
        threading.Event().wait(0.002)


def test_a_run_has_no_more_rows_than_the_setting_says(held):
    batches = Batches(held, Sharing(most=2, at_once=1))
    with ThreadPoolExecutor(6) as threads:
        threads.submit(batches.run, crops(1), never)
        assert held.is_running.wait(10.0)
        later = [threads.submit(batches.run, crops(shade), never) for shade in range(5)]
        wait_until_waiting(batches, 5)
        held.let_go.set()
        for answer in later:
            answer.result()

    assert held.rows == [1, 2, 2, 1]


def test_a_call_of_more_rows_than_a_run_takes_goes_alone(graph):
    batches = Batches(graph, Sharing(most=2, at_once=1))

    (logits,) = batches.run(crops(1, 2, 3), never)

    assert len(logits) == 3


def test_calls_of_other_shapes_do_not_share_a_run(held):
    def echo(image):
        held(**crops(0))
        return (image.astype(np.float32),)

    batches = Batches(echo, Sharing(most=8, at_once=1))
    with ThreadPoolExecutor(3) as threads:
        threads.submit(batches.run, crops(1), never)
        assert held.is_running.wait(10.0)
        small, large = {"image": np.ones((1, 2))}, {"image": np.ones((1, 3))}
        answers = [threads.submit(batches.run, arrays, never) for arrays in (small, large)]
        held.let_go.set()

    assert [answer.result()[0].shape for answer in answers] == [(1, 2), (1, 3)]


def test_who_was_given_up_while_it_waited_is_left_out(held):
    batches, given_up = Batches(held, Sharing(most=8, at_once=1)), threading.Event()
    with ThreadPoolExecutor(3) as threads:
        threads.submit(batches.run, crops(1), never)
        assert held.is_running.wait(10.0)
        gone = threads.submit(batches.run, crops(2, 3), given_up.is_set)
        stays = threads.submit(batches.run, crops(4), never)
        wait_until_waiting(batches, 2)
        given_up.set()
        held.let_go.set()

    assert isinstance(gone.exception(), ClientDisconnect)
    assert len(stays.result()[0]) == 1
    assert held.rows == [1, 1]


def test_a_run_that_fails_fails_its_culprit_alone(tmp_path):
    bundle = open_bundle(write_tiny_bundle(tmp_path, segmenter="brittle"), Device("cpu", 1))
    batches = Batches(bundle.detector.segmenter.graph, TOGETHER)
    blue = {"image": np.full((1, CROP_PX, CROP_PX, 3), 255, np.uint8)}

    good, bad, other = call_at_once(batches, crops(1, 2, 3), blue, crops(4, 5, 6, 7))

    assert isinstance(bad, Exception)
    assert [len(logits) for (logits,) in (good, other)] == [3, 4]


def test_a_graph_of_fixed_rows_is_called_as_ever(graph):
    batches = Batches(graph, Sharing())

    call_at_once(batches, crops(1), crops(2), crops(3))

    assert graph.rows == [1, 1, 1]


@pytest.mark.parametrize(("rows", "ran"), [(1, 1), (3, 4), (4, 4), (5, 8), (9, 9)])
def test_rows_are_filled_up_to_the_next_size(graph, rows, ran):
    batches = Batches(graph, Sharing(most=8, sizes=(1, 2, 4, 8)))
    arrays = crops(*range(rows))

    (logits,) = batches.run(arrays, never)

    assert graph.rows == [ran]
    np.testing.assert_array_equal(logits, graph.graph(**arrays)[0])


@pytest.mark.slow
@pytest.mark.parametrize("product", ["brushed-plate", "ball-screw"])
def test_a_shipped_segmenter_says_the_same_of_a_crop_in_any_company(product):
    bundle = open_bundle(find_bundle(SHIPPED, product), Device("cpu", 1))
    segmenter = bundle.detector.segmenter
    side_px, rng = segmenter.side_px, np.random.default_rng(0)
    images = rng.integers(0, 256, (4, side_px, side_px, 3), np.uint8)
    batches = Batches(segmenter.graph, Sharing(most=4, window_s=60.0))

    answers = call_at_once(batches, {"image": images[:3]}, {"image": images[3:]})

    alone = [segmenter.graph(image=image[None])[0] for image in images]
    together = np.concatenate([logits for (logits,) in answers])
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4, rtol=0)
