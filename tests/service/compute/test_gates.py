from __future__ import annotations

import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from starlette.requests import ClientDisconnect

from models.bundle import SHIPPED, find_bundle, open_bundle
from models.detection import detect
from models.devices import Device
from models.errors import DeviceLost
from models.steps.pictures import Picture, PictureLimits, decode_picture
from models.synthesis import SynthesisRequest, synthesize
from service.compute.failures import Failures
from service.compute.gates import serve, sharing_of
from service.compute.tickets import TICKET, Ticket
from service.graph_metrics import GraphMetrics
from service.settings import Settings
from tests.tiny import CROP_PX, write_tiny_bundle

CUDA = ("CUDAExecutionProvider", "CPUExecutionProvider")


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def failures():
    failures = Failures(every_s=0.01)
    yield failures
    failures.close()


@contextmanager
def work_of(ticket):
    whose = TICKET.set(ticket)
    try:
        yield
    finally:
        TICKET.reset(whose)


def picture(blue=0):
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[20:30, 40:52] = (255, 0, blue)
    return Picture(pixels)


def test_a_served_bundle_answers_as_it_did_before(tiny, registry, failures):
    served = serve(tiny, Settings(), GraphMetrics(registry), failures)

    with work_of(Ticket()):
        detection = detect(picture(), served.detector)

    (defect,), (before,) = detection.defects, detect(picture(), tiny.detector).defects
    np.testing.assert_array_equal(defect.region.mask, before.region.mask)
    assert defect.score == before.score


def test_a_visit_that_was_given_up_runs_no_further_graph(tiny, registry, failures):
    served = serve(tiny, Settings(), GraphMetrics(registry), failures)
    ticket = Ticket()
    ticket.end()

    with work_of(ticket), pytest.raises(ClientDisconnect):
        detect(picture(), served.detector)

    assert 'flawsmith_inferences_total{graph="locator",product="tiny"} 0.0' in text_of(registry)


def test_a_visit_given_up_in_its_first_stage_does_not_begin_the_second(tiny, registry, failures):
    ticket = Ticket()

    def gives_up(name, graph):
        def call(**arrays):
            outputs = graph(**arrays)
            if name == "locator" and TICKET.get() is ticket:
                ticket.end()
            return outputs

        return call

    served = serve(tiny.through(gives_up), Settings(), GraphMetrics(registry), failures)
    with work_of(ticket), pytest.raises(ClientDisconnect):
        detect(picture(), served.detector)

    text = text_of(registry)
    assert 'flawsmith_inferences_total{graph="locator",product="tiny"} 1.0' in text
    assert 'flawsmith_inferences_total{graph="segmenter",product="tiny"} 0.0' in text


def test_a_graph_that_raises_is_noted_and_tried_until_it_runs(tmp_path: Path, registry, failures):
    bundle = open_bundle(write_tiny_bundle(tmp_path, segmenter="brittle"), Device("cpu", 1))
    served = serve(bundle, Settings(), GraphMetrics(registry), failures)

    with work_of(Ticket()), pytest.raises(DeviceLost, match="segmenter"):
        detect(picture(blue=255), served.detector)

    wait_until(lambda: failures.names == [])
    assert "flawsmith_inference_failures_total" in text_of(registry)
    with work_of(Ticket()):
        assert detect(picture(), served.detector).verdict == "ng"


def test_a_device_that_is_gone_is_noted_until_it_is_back(tiny, registry, failures):
    is_gone = []

    def device(_, graph):
        def call(**arrays):
            if is_gone:
                raise RuntimeError("CUDA error 700")
            return graph(**arrays)

        return call

    served = serve(tiny.through(device), Settings(), GraphMetrics(registry), failures)
    is_gone.append(True)
    with work_of(Ticket()), pytest.raises(DeviceLost, match="700"):
        detect(picture(), served.detector)
    time.sleep(0.05)
    assert failures.names == ["tiny 10 locator"]

    is_gone.clear()

    wait_until(lambda: failures.names == [])


def test_a_graph_that_fails_while_it_is_warmed_up_is_the_callers_to_refuse(
    tiny, registry, failures
):
    def gone(*_):
        def call(**_):
            raise RuntimeError("no kernel image")

        return call

    with pytest.raises(DeviceLost, match="no kernel image"):
        serve(tiny.through(gone), Settings(), GraphMetrics(registry), failures)

    assert failures.names == []


def test_a_served_bundle_that_is_let_go_of_leaves_memory_at_once(tiny, registry, failures):
    served = serve(tiny, Settings(), GraphMetrics(registry), failures)
    gate = weakref.ref(served.detector.segmenter.graph)
    gc.disable()
    try:
        del served
        assert gate() is None
    finally:
        gc.enable()


def test_on_cuda_every_number_of_rows_is_warm_before_it_serves(tiny, registry, failures):
    rows = []

    def note(name, graph):
        def call(**arrays):
            if name == "segmenter":
                rows.append(len(arrays["image"]))
            return graph(**arrays)

        return call

    on_cuda = replace(tiny.through(note), providers=CUDA)
    served = serve(on_cuda, Settings(), GraphMetrics(registry), failures)
    assert rows[-5:] == [1, 2, 4, 8, 16]

    with work_of(Ticket()):
        served.detector.segmenter.graph(image=np.zeros((3, CROP_PX, CROP_PX, 3), np.uint8))

    assert rows[-1] == 4


def test_on_a_cpu_nobody_waits_for_a_run_that_is_at_work(tiny):
    sharing = sharing_of("segmenter", tiny, Settings())

    assert (sharing.most, sharing.at_once, sharing.sizes) == (16, None, ())


def test_on_cuda_what_waits_shares_the_next_run(tiny):
    on_cuda = replace(tiny, providers=CUDA)

    sharing = sharing_of("segmenter", on_cuda, Settings(batch_size=32, batch_window_ms=2))

    assert (sharing.most, sharing.at_once, sharing.window_s) == (32, 1, 0.002)
    assert sharing.sizes == (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize("name", ["mask_generator", "defect_generator"])
def test_generators_run_alone_unless_a_deployment_says_otherwise(tiny, name):
    assert sharing_of(name, tiny, Settings()).most == 1
    assert sharing_of(name, tiny, Settings(batch_samples=4)).most == 4


def test_a_locator_runs_alone(tiny):
    assert sharing_of("locator", tiny, Settings(batch_size=8)).most == 1


def test_a_graph_of_fixed_rows_runs_alone(tmp_path: Path):
    bundle = open_bundle(write_tiny_bundle(tmp_path, segmenter="one"), Device("cpu", 1))

    assert sharing_of("segmenter", bundle, Settings()).most == 1


@pytest.mark.parametrize(
    "shared", [{}, {"batch_samples": 4, "batch_window_ms": 30}], ids=["alone", "together"]
)
def test_samples_made_beside_others_are_those_of_their_seed(tiny, registry, failures, shared):
    served = serve(tiny, Settings(**shared), GraphMetrics(registry), failures)
    pixels = np.random.default_rng(1).integers(170, 210, (96, 128, 3), np.uint8)
    seeds = (3, 4, 5, 6)

    def make(synthesizer, seed):
        request = SynthesisRequest(seed=seed, region=(10, 10, 100, 70))
        with work_of(Ticket("bulk")):
            return next(synthesize(Picture(pixels), request, synthesizer)).pixels

    with ThreadPoolExecutor(len(seeds)) as threads:
        made = list(threads.map(partial(make, served.synthesizer), seeds))

    for seed, sample in zip(seeds, made, strict=True):
        np.testing.assert_array_equal(sample, make(tiny.synthesizer, seed))
    of = {"product": "tiny", "graph": "defect_generator"}
    rows, runs = (
        registry.get_sample_value(f"flawsmith_batch_size_{what}", of) for what in ("sum", "count")
    )
    assert (rows > runs) == bool(shared)


@pytest.mark.slow
@pytest.mark.parametrize("product", ["brushed-plate", "ball-screw"])
def test_detections_that_share_runs_find_what_they_find_alone(product, registry, failures):
    bundle = open_bundle(find_bundle(SHIPPED, product), Device("cpu", 1))
    served = serve(bundle, Settings(batch_window_ms=1000), GraphMetrics(registry), failures)
    plate = decode_picture(Path("samples/plate.jpg").read_bytes(), PictureLimits())
    squares = [Picture(plate.pixels[y : y + 800, 900:1900].copy()) for y in (600, 1400, 2000)]

    def find(detector, square):
        with work_of(Ticket()):
            return detect(square, detector.with_params(min_confidence=0.0, min_score=0.0))

    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(partial(find, served.detector), squares))

    for square, detection in zip(squares, together, strict=True):
        alone = find(bundle.detector, square)
        assert detection.verdict == alone.verdict
        assert len(detection.defects) == len(alone.defects)
        for one, other in zip(detection.defects, alone.defects, strict=True):
            assert (one.label, one.score) == (other.label, pytest.approx(other.score, abs=1e-4))
            np.testing.assert_array_equal(one.region.mask, other.region.mask)
    rows_of_a_run = registry.get_sample_value(
        "flawsmith_batch_size_sum", {"product": product, "graph": "segmenter"}
    ) / registry.get_sample_value(
        "flawsmith_batch_size_count", {"product": product, "graph": "segmenter"}
    )
    assert rows_of_a_run > 5


def text_of(registry):
    return generate_latest(registry).decode()


def wait_until(is_so):
    ends_s = time.monotonic() + 10.0
    while not is_so():
        assert time.monotonic() < ends_s
        time.sleep(0.002)
