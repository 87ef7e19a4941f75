from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.steps.pictures import encode_png
from service.__main__ import connection_limits
from service.connections import bare_problem, protocol_of
from service.settings import Settings
from tests.processes import Served, read_all, serving

POST = b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hasty(bundles):
    """A service that waits for nothing longer than half a second, nor for fewer than 10 kB/s."""
    limits = {"head_timeout_s": 0.5, "stall_s": 0.5, "min_bytes_per_s": 10_000}
    with serving(bundles, **limits, max_connections=20, max_head_bytes=8192) as served:
        served.wait_until_ready()
        yield served


def problem_of(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"connection: close" in head
    return json.loads(body)


def drip(wire: socket.socket, data: bytes, every_s: float = 0.1) -> float:
    """Send a byte at a time until the other side has enough of it; seconds that took."""
    began_s = time.monotonic()
    wire.setblocking(False)
    for byte in data:
        try:
            wire.send(bytes([byte]))
            if wire.recv(1, socket.MSG_PEEK) or True:
                break
        except BlockingIOError:
            time.sleep(every_s)
        except OSError:
            break
    wire.settimeout(10)
    return time.monotonic() - began_s


def assert_serves_on(served: Served, picture: bytes) -> None:
    status, _, _ = served.ask("POST", "/detect", picture, {"Content-Type": "image/png"})
    assert status == 200


def test_a_head_that_comes_a_byte_at_a_time_is_answered_408_and_closed(hasty, red_square_png):
    with hasty.wire() as wire:
        took_s = drip(wire, POST)
        answer = read_all(wire)

    assert problem_of(answer)["code"] == "request_timeout"
    assert took_s < 3
    assert_serves_on(hasty, red_square_png)


def test_empty_lines_do_not_prolong_the_wait_for_a_head(hasty):
    with hasty.wire() as wire:
        took_s = drip(wire, b"\r\n" * 100)

    assert took_s < 3


@contextmanager
def answering_after(seconds: float, **limits: float) -> Iterator[socket.socket]:
    """A connection to a server with an application that takes its time for every answer."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(seconds)
        await Response("done")(scope, receive, send)

    protocol = protocol_of(replace(connection_limits(Settings()), **limits))
    config = uvicorn.Config(application, port=0, http=protocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        with socket.create_connection(server.servers[0].sockets[0].getsockname(), 10) as wire:
            yield wire
    finally:
        server.should_exit = True
        thread.join()


def read_answer(wire: socket.socket) -> bytes:
    """That application's answer, or what came until the end of the connection."""
    received = b""
    while not received.endswith(b"done") and (data := wire.recv(65536)):
        received += data
    return received


@pytest.mark.parametrize("after", [b"\r\n", b"GET / HTTP/1.1\r\n"], ids=["line", "half a head"])
def test_what_comes_after_a_body_has_no_time_of_its_own_while_the_request_runs(after):
    with answering_after(0.5, head_s=0.1) as wire:
        wire.sendall(POST + b"Content-Length: 4\r\n\r\nbody")
        time.sleep(0.05)
        wire.sendall(after)
        answer = read_answer(wire)

    assert answer.startswith(b"HTTP/1.1 200 ")


def test_an_empty_line_after_a_body_does_not_end_the_connection():
    with answering_after(0.2, head_s=0.1) as wire:
        for _ in range(2):
            wire.sendall(POST + b"Content-Length: 4\r\n\r\nbody")
            time.sleep(0.05)
            wire.sendall(b"\r\n")
            assert read_answer(wire).startswith(b"HTTP/1.1 200 ")


def test_a_head_that_comes_slowly_after_an_answer_is_refused():
    with answering_after(0.1, head_s=0.2) as wire:
        wire.sendall(POST + b"Content-Length: 4\r\n\r\nbody")
        time.sleep(0.05)
        wire.sendall(b"GET ")
        answer = read_answer(wire)
        took_s = drip(wire, b"/" * 100, every_s=0.05)
        refusal = read_all(wire)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert problem_of(refusal)["code"] == "request_timeout"
    assert took_s < 3


def test_a_connection_that_says_nothing_is_closed_without_a_word(hasty):
    with hasty.wire(5) as wire:
        assert read_all(wire) == b""


def test_a_body_that_comes_a_byte_at_a_time_is_cut(hasty, red_square_png):
    with hasty.wire() as wire:
        wire.sendall(POST + b"Content-Length: 1000\r\n\r\n")
        took_s = drip(wire, bytes(100))

    assert took_s < 3
    assert hasty.wait_for("nothing moves")["client"] == "127.0.0.1"
    assert_serves_on(hasty, red_square_png)


def test_a_slow_network_is_no_slow_client(hasty, red_square_png):
    body = red_square_png + bytes(20_000)
    with hasty.wire() as wire:
        wire.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 2500):
            wire.sendall(body[start : start + 2500])
            time.sleep(0.1)
        answer = wire.recv(65536)

    assert answer.startswith(b"HTTP/1.1 ")
    assert b"x-request-id" in answer


def test_a_refused_body_that_ends_in_time_does_not_end_the_next_request(hasty, red_square_png):
    refused = b"POST /none HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with hasty.wire() as wire:
        wire.sendall(refused + bytes(500))
        first = b""
        while not first.endswith(b"}"):
            first += wire.recv(65536)
        time.sleep(0.3)
        wire.sendall(bytes(500) + POST + b"Content-Length: %d\r\n\r\n" % len(red_square_png))
        wire.sendall(red_square_png[:100])
        time.sleep(0.35)
        wire.sendall(red_square_png[100:])
        second = wire.recv(65536)

    assert first.startswith(b"HTTP/1.1 404 ")
    assert second.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v2 HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(200)) + b"\r\n",
        b"GET /v2 HTTP/1.1\r\nX: " + b"h" * 20_000,
        b"GET /" + b"p" * 20_000,
    ],
    ids=["many headers", "an endless header", "an endless path"],
)
def test_a_head_beyond_its_limits_is_refused(hasty, head):
    with hasty.wire(5) as wire:
        wire.sendall(head)
        answer = read_all(wire)

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert problem_of(answer)["code"] == "head_too_large"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 1e3\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nBad Name: 1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"CONNECT other:443 HTTP/1.1\r\n\r\n",
    ],
    ids=[
        "version",
        "TLS",
        "two lengths",
        "length and chunks",
        "negative length",
        "length in words",
        "bad chunk",
        "bad name",
        "bad path",
        "connect",
    ],
)
def test_what_is_no_request_is_a_problem_and_ends_the_connection(hasty, head):
    with hasty.wire(5) as wire:
        wire.sendall(head)
        answer = read_all(wire)

    assert b'"code":"bad_request"' in answer
    assert answer.count(b"HTTP/1.1 ") == 1


def sent_until_cut(wire: socket.socket, head: bytes, piece: bytes) -> int:
    """Send pieces, fast, for at most five seconds; the bytes that the other side let in."""
    ends_s, sent = time.monotonic() + 5, 0
    with suppress(ConnectionError):
        wire.sendall(head)
        while time.monotonic() < ends_s:
            wire.sendall(piece)
            sent += len(piece)
            time.sleep(0.01)
        raise AssertionError("it is still read")
    return sent


def test_a_trailer_that_never_ends_is_not_kept(hasty):
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: "

    with hasty.wire(5) as wire:
        assert sent_until_cut(wire, head, b"t" * 4096) < 100_000


def test_a_body_that_goes_on_after_its_refusal_is_not_read_for_ever(hasty):
    head = POST + b"Content-Length: %d\r\n\r\n" % 10**12

    with hasty.wire(5) as wire:
        assert sent_until_cut(wire, head, bytes(10_000)) > 10_000

    assert hasty.wait_for("the body goes on after its answer")


def test_one_connection_too_many_is_answered_and_closed(hasty):
    open_ones = [hasty.wire(5) for _ in range(20)]
    try:
        with hasty.wire(5) as wire:
            answer = read_all(wire)
    finally:
        for one in open_ones:
            one.close()

    assert problem_of(answer)["code"] == "busy"
    assert b"retry-after" in answer
    hasty.wait_until_ready()


def test_an_answer_that_nobody_reads_is_let_go(bundles):
    noise = np.random.default_rng(1).integers(0, 255, (1200, 1600, 3)).astype(np.uint8)
    noise[..., 0] = 0
    picture = encode_png(noise)
    ask = (
        b"POST /detect?n=16&crop_size=512&min_confidence=0&crop_images=png HTTP/1.1\r\nHost: x\r\n"
    )
    ask += b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(picture)
    with serving(bundles, stall_s=0.5, queue_size=0) as served:
        served.wait_until_ready()
        with served.wire() as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.sendall(ask + picture)
            served.wait_for("nothing moves")

            assert b"content-length: " in wire.recv(1000)
            assert_serves_on(served, picture)  # in the only place that there is


def test_a_bare_problem_is_a_whole_answer():
    head, _, body = bare_problem(408, "request_timeout", "too slow", "some-id").partition(
        b"\r\n\r\n"
    )

    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["instance"] == "/requests/some-id"
