"""A client's day with `python -m service`: a real process, real sockets."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from models.steps.pictures import encode_png
from tests.tiny import write_tiny_bundle

PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def picture() -> bytes:
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[20:30, 40:52, 0] = 255
    return encode_png(pixels)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    write_tiny_bundle(root)
    return root


@dataclass(frozen=True)
class Service:
    """A running service and the connections to it, which end with it."""

    process: subprocess.Popen[str]
    port: int
    open: ExitStack

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        return self.open.enter_context(closing(connection))


@pytest.fixture
def service(bundles):
    """`python -m service`, ready, with one worker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"PORT": str(port), "BUNDLES": str(bundles), "THREADS": "1", "WORKERS": "1"}
    environment = {"PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "service"]
    environment |= {f"SERVICE_{name}": text for name, text in settings.items()}
    with (
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process,
        ExitStack() as connections,
    ):
        running = Service(process, port, connections)
        wait_until_ready(running)
        yield running
        process.kill()


def wait_until_ready(running: Service) -> None:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and running.process.poll() is None:
        try:
            if ask(running.connect(), "GET", "/v2/health/ready")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"the service did not start: {running.process.poll()}")


def ask(connection, method: str, path: str, body: bytes | None = None, headers=None):
    connection.request(method, path, body, headers or {})
    return read(connection)


def read(connection):
    answer = connection.getresponse()
    data = answer.read()
    is_json = "json" in answer.headers["content-type"]
    return answer.status, json.loads(data) if is_json else data


def begin_upload(running: Service, body: bytes) -> http.client.HTTPConnection:
    """Send the head and half of the body."""
    connection = running.connect()
    connection.putrequest("POST", "/detect")
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[: len(body) // 2])
    return connection


def test_one_connection_serves_many_requests_good_and_bad(service, picture):
    connection = service.connect()

    first = ask(connection, "POST", "/detect", picture, PNG)
    sock = connection.sock
    bad = ask(connection, "POST", "/detect", b"no picture", PNG)
    second = ask(connection, "POST", "/detect", picture, PNG)

    assert (first[0], bad[0], second[0]) == (200, 415, 200)
    assert first[1]["verdict"] == second[1]["verdict"] == "ng"
    assert connection.sock is sock


def test_a_slow_upload_does_not_hold_up_the_others(service, picture):
    slow = begin_upload(service, picture)

    others = [ask(service.connect(), "POST", "/detect", picture, PNG)[0] for _ in range(3)]
    slow.send(picture[len(picture) // 2 :])

    assert others == [200, 200, 200]
    assert read(slow)[0] == 200


@pytest.fixture(scope="module")
def large() -> bytes:
    """2 megapixels: work that takes longer than a burst takes to come."""
    pixels = np.zeros((1200, 1600, 3), np.uint8)
    pixels[200:300, 400:500, 0] = 255
    return encode_png(pixels)


@pytest.mark.slow
def test_a_burst_is_answered_or_refused_and_probes_are_answered_meanwhile(service, large):
    with ThreadPoolExecutor(32) as clients:
        burst = [clients.submit(post, service, "/detect", large) for _ in range(32)]
        probes = [ask(service.connect(), "GET", "/v2/health/ready")[0] for _ in range(5)]
        collected = ask(service.connect(), "GET", "/metrics")[0]
    answers = [one.result() for one in burst]

    assert {status for status, _ in answers} == {200, 429}
    assert all(int(waits_s) >= 1 for status, waits_s in answers if status == 429)
    assert {*probes, collected} == {200}
    assert nobody_is_inside(service)


@pytest.mark.slow
def test_detections_are_let_in_while_synthesis_is_refused(service, picture):
    query = "/synthesize?count=12&seed=25&region=10,10,80,70"
    with ThreadPoolExecutor(32) as clients:
        bulk = [clients.submit(post, service, query, picture) for _ in range(32)]
        detections = [post(service, "/detect", picture)[0] for _ in range(10)]
    refusals = [one for one in bulk if one.result()[0] == 429]

    assert detections == [200] * 10
    assert refusals


@pytest.mark.slow
def test_a_client_that_leaves_its_detection_leaves_nothing_behind(service, large):
    for _ in range(6):
        connection = service.connect()
        connection.putrequest("POST", "/detect")
        connection.putheader("Content-Type", "image/png")
        connection.putheader("Content-Length", str(len(large)))
        connection.endheaders(large)
        time.sleep(0.05)
        connection.close()

    assert nobody_is_inside(service)
    assert post(service, "/detect", large)[0] == 200


def post(running: Service, path: str, body: bytes) -> tuple[int, str]:
    """The status, and when to come again."""
    connection = running.connect()
    connection.request("POST", path, body, PNG)
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers.get("Retry-After", "")


def nobody_is_inside(running: Service) -> bool:
    """Whether, within some seconds, no request waits or runs and no picture is in memory."""
    idle = ("flawsmith_queued 0.0", "flawsmith_running 0.0", "flawsmith_decoded_bytes 0.0")
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        text = ask(running.connect(), "GET", "/metrics")[1].decode()
        if all(line in text for line in idle):
            return True
        time.sleep(0.05)
    return False


def test_an_upload_that_is_announced_too_large_is_answered(service):
    connection = service.connect()
    connection.putrequest("POST", "/detect")
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()

    status, problem = read(connection)

    assert (status, problem["code"]) == (413, "too_large")


def test_an_upload_that_never_ends_meets_its_deadline(service, picture):
    connection = service.connect()
    connection.putrequest("POST", "/detect")
    for name, text in (PNG | {"X-Request-Timeout-Ms": "200"}).items():
        connection.putheader(name, text)
    connection.putheader("Content-Length", str(len(picture)))
    connection.endheaders(picture[:10])

    assert read(connection)[0] == 504


def test_a_client_that_leaves_in_the_middle_of_its_upload_harms_nobody(service, picture):
    for _ in range(30):
        begin_upload(service, picture).close()

    assert ask(service.connect(), "POST", "/detect", picture, PNG)[0] == 200


@pytest.mark.parametrize(
    "nonsense",
    [b"\x00\xff\x16\x03\x01\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /detect\r\n\r\n"],
)
def test_bytes_that_are_no_http_harm_nobody(service, picture, nonsense):
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as wire:
        wire.sendall(nonsense)
        wire.shutdown(socket.SHUT_WR)
        wire.recv(4096)

    assert ask(service.connect(), "POST", "/detect", picture, PNG)[0] == 200


def test_a_chunked_body_is_read(service, picture):
    connection = service.connect()

    connection.request("POST", "/detect", iter([picture[:50], picture[50:]]), PNG)

    assert read(connection)[0] == 200


def test_a_zip_is_streamed_over_the_wire(service, picture):
    query = "/synthesize?count=3&seed=25&region=10,10,80,70"

    status, data = ask(
        service.connect(), "POST", query, picture, PNG | {"Accept": "application/zip"}
    )

    assert status == 200
    assert data.startswith(b"PK")


def test_sigterm_lets_a_request_finish_refuses_new_ones_and_ends_clean(service, picture):
    slow = begin_upload(service, picture)
    time.sleep(0.2)
    waiting = service.connect()
    waiting.connect()

    service.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    refused = ask(waiting, "POST", "/detect", picture, PNG)
    not_ready = ask(service.connect(), "GET", "/v2/health/ready")
    slow.send(picture[len(picture) // 2 :])
    finished = read(slow)

    assert (refused[0], refused[1]["code"]) == (503, "draining")
    assert not_ready[0] == 503
    assert (finished[0], finished[1]["verdict"]) == (200, "ng")
    assert service.process.wait(timeout=20) == 0


def test_every_log_line_is_a_json_object(service, picture):
    ask(service.connect(), "POST", "/detect", picture, PNG | {"X-Request-Id": "mine"})
    service.process.send_signal(signal.SIGTERM)

    lines = [json.loads(line) for line in service.process.stdout]

    (own,) = [line for line in lines if line.get("id") == "mine"]
    assert (own["route"], own["status"], own["verdict"]) == ("/detect", 200, "ng")
    assert own["timings_ms"]["total"] > 0
