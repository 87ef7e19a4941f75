from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.bench.load import LOST, Answer, Ask, ask_at_once, ask_at_rate, percentile_s


@contextmanager
def run_server(delay_s: float = 0.0) -> Iterator[tuple[int, Counter[str]]]:
    """A server that answers each path's own status after a while, and counts what it got."""
    seen: Counter[str] = Counter()

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen[self.path] += 1
            time.sleep(delay_s)
            if self.path == "/0":
                self.close_connection = True
                return
            self.send_response(int(self.path[1:]))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    running = threading.Thread(target=server.serve_forever)
    running.start()
    try:
        yield server.server_port, seen
    finally:
        server.shutdown()
        running.join()
        server.server_close()


def test_clients_at_once_send_every_request_once():
    asks = [Ask(f"/{200 + number % 3}", b"x") for number in range(30)]

    with run_server() as (port, seen):
        answers = ask_at_once(port, asks, clients=4)

    assert seen == {"/200": 10, "/201": 10, "/202": 10}
    assert Counter(answer.status for answer in answers) == {200: 10, 201: 10, 202: 10}


def test_a_broken_connection_is_told_and_the_next_request_has_a_new_one():
    with run_server() as (port, _):
        answers = ask_at_once(port, [Ask("/0", b"x"), Ask("/200", b"x")], clients=1)

    assert [answer.status for answer in answers] == [LOST, 200]


def test_a_rate_is_kept_where_answers_take_longer_than_the_time_between():
    with run_server(delay_s=0.2) as (port, seen):
        started_s = time.perf_counter()
        answers = ask_at_rate(port, Ask("/200", b"x"), per_s=50.0, seconds=0.4, clients=20)
        took_s = time.perf_counter() - started_s

    assert seen == {"/200": 20}
    assert len(answers) == 20
    assert took_s < 20 * 0.2  # one after the other would have taken that


def test_a_request_that_waits_for_its_client_is_timed_from_when_it_was_due():
    with run_server(delay_s=0.05) as (port, _):
        answers = ask_at_rate(port, Ask("/200", b"x"), per_s=1000.0, seconds=0.01, clients=1)

    assert answers[-1].seconds > 8 * 0.05


def test_percentiles_are_those_of_the_answers_with_that_status():
    answers = [Answer(200, float(i)) for i in range(101)] + [Answer(429, 1e6)]

    assert percentile_s(answers, 50) == pytest.approx(50.0)
    assert percentile_s(answers, 99) == pytest.approx(99.0)
