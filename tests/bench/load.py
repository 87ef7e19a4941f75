"""Clients of a running server: so many at once, or so many requests a second.

Threads with kept-alive connections of the standard library: they take less of the machine that
they share with the server than any client library does.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from queue import SimpleQueue
from statistics import quantiles

CLIENT_TIMEOUT_S = 120.0
LOST = 0
"""In place of a status: the connection broke before there was an answer."""


@dataclass(frozen=True)
class Ask:
    """One request, as it is sent."""

    path: str
    body: bytes
    content_type: str = "image/jpeg"


@dataclass(frozen=True)
class Answer:
    """One request's end: its status, and the time from when it was due until it was read."""

    status: int
    seconds: float


def ask_at_once(
    port: int, asks: Sequence[Ask], *, clients: int, begun: Callable[[int], None] = lambda _: None
) -> list[Answer]:
    """Every request once, by so many clients, each sending its next when it has its answer.

    begun: told the number of each request before it is sent.
    """
    numbers = count()
    lock = threading.Lock()

    def client() -> Iterator[Answer]:
        with Connection(port) as connection:
            while True:
                with lock:
                    number = next(numbers)
                if number >= len(asks):
                    return
                begun(number)
                yield connection.ask(asks[number], time.perf_counter())

    with ThreadPoolExecutor(clients) as pool:
        told = [pool.submit(lambda: list(client())) for _ in range(clients)]
        return [answer for one in told for answer in one.result()]


def ask_at_rate(port: int, ask: Ask, *, per_s: float, seconds: float, clients: int) -> list[Answer]:
    """The same request so often a second, whether or not the ones before are answered.

    A request's time begins when it was due: a client that is still busy then makes it no shorter.
    `clients` bounds how many are under way; there must be more than the server lets in.
    """
    started_s = time.perf_counter()
    due_s = [started_s + number / per_s for number in range(round(per_s * seconds))]
    idle: SimpleQueue[Connection] = SimpleQueue()

    def send(at_s: float) -> Answer:
        connection = idle.get()
        try:
            return connection.ask(ask, at_s)
        finally:
            idle.put(connection)

    with ExitStack() as stack, ThreadPoolExecutor(clients) as pool:
        for _ in range(clients):
            idle.put(stack.enter_context(Connection(port)))
        told = []
        for at_s in due_s:
            time.sleep(max(0.0, at_s - time.perf_counter()))
            told.append(pool.submit(send, at_s))
        return [one.result() for one in told]


class Connection:
    """One kept-alive connection; it is opened anew after it broke."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=CLIENT_TIMEOUT_S)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, ask: Ask, due_s: float) -> Answer:
        """Send a request and read its answer whole."""
        try:
            self._http.request("POST", ask.path, ask.body, {"Content-Type": ask.content_type})
            answer = self._http.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            self._http.close()
            status = LOST
        return Answer(status, time.perf_counter() - due_s)


def percentile_s(answers: Sequence[Answer], percent: int, status: int = 200) -> float:
    """That percentile of the times of the answers with this status, s."""
    times_s = [answer.seconds for answer in answers if answer.status == status]
    return quantiles(times_s, n=100, method="inclusive")[percent - 1]
