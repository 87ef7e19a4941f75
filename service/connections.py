"""Connections with limits: nobody holds one for nothing, however slowly it sends or reads.

uvicorn's protocol has no time limit for a request's head, none for a body, and none for an answer
that is not read; nor does its parser bound a head. All of them are kept here, for each connection.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.problems import problem_document
from service.telemetry import new_id

LOG = logging.getLogger("service")
TICKS = 4
"""Looks at a connection within the time that it may stall."""


@dataclass(frozen=True)
class ConnectionLimits:
    """What one connection may take. `stall_s` in a row under `bytes_per_s` cut it, both ways."""

    head_s: float
    head_bytes: int
    headers: int
    stall_s: float
    bytes_per_s: int
    connections: int

    @property
    def tick_s(self) -> float:
        """Time between two looks at a connection."""
        return min(self.head_s, self.stall_s) / TICKS


class Refusal(Exception):
    """The head of a request is not taken."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A body and an answer must move; a head must come, and be of bounded size."""

    limits: ConnectionLimits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        self._out = CountedTransport(transport)
        super().connection_made(cast(asyncio.Transport, self._out))
        self._head_since_s: float | None = self.loop.time()
        self._head_bytes = self._headers_seen = self._without_body = 0
        self._is_in_body = self._has_body_moved = False
        self._received = self._counted_in = self._counted_out = self._slow_ticks = 0
        self._refusal = (400, "bad_request", "this is no HTTP request")
        self._ending: asyncio.TimerHandle | None = None
        self._looking = self._look_later()
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "busy", "too many connections are open")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to look at it."""
        self._looking.cancel()
        self._spare()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count, parse, and refuse a head that is too large before it is whole."""
        if self.transport.is_closing():
            return
        self._received += len(data)
        if not self._is_in_body:
            self._await_head()
        self._has_body_moved = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head_since_s is not None:
            self._head_bytes += len(data)
        # A trailer that never ends is kept by the parser, and no body comes of it.
        self._without_body = 0 if self._has_body_moved else self._without_body + len(data)
        if max(self._head_bytes, self._without_body) > self.limits.head_bytes:
            self._refuse(431, "head_too_large", f"at most {self.limits.head_bytes} bytes are taken")

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._headers_seen = self._without_body = 0
        self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Errors: Refusal for one too many, or one that makes the head too large."""
        self._headers_seen += 1
        if self._headers_seen > self.limits.headers:
            self._refusal = (
                431,
                "head_too_large",
                f"at most {self.limits.headers} headers are taken",
            )
            raise Refusal
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole: the request begins, and its body."""
        self._head_since_s, self._head_bytes = None, 0
        self._is_in_body = self._has_body_moved = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._has_body_moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._is_in_body, self._has_body_moved = False, True
        self._slow_ticks = 0
        self._spare()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer to a body that is still being sent ends the connection, after a while.

        At once would take the answer from a client that reads it only when all is sent.
        """
        super().on_response_complete()
        if self._is_in_body and not self.transport.is_closing():
            self._ending = self.loop.call_later(self.limits.stall_s, self._end_unread)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """What the parser stumbled over, as a problem document."""
        self._refuse(*self._refusal)

    def _await_head(self) -> None:
        """Start a head's time, unless a request runs: what comes then waits for its answer.

        Some clients send an empty line after a body. It begins nothing.
        """
        if self._head_since_s is None and not self._has_request():
            self._head_since_s, self._head_bytes = self.loop.time(), 0

    def _look_later(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self.limits.tick_s, self._look)

    def _look(self) -> None:
        """Refuse a head that does not come, cut what does not move."""
        since_s = self._head_since_s
        is_late = since_s is not None and self.loop.time() - since_s > self.limits.head_s
        if is_late and not self.transport.is_closing():
            self._refuse(408, "request_timeout", "the head of the request did not come in time")
        self._slow_ticks = self._slow_ticks + 1 if self._is_slow() else 0
        if self._slow_ticks * self.limits.tick_s >= self.limits.stall_s:
            self._cut("nothing moves")
        else:
            self._looking = self._look_later()

    def _is_slow(self) -> bool:
        waiting = self.transport.get_write_buffer_size()
        moved_in = self._received - self._counted_in
        moved_out = self._out.handed - waiting - self._counted_out
        self._counted_in += moved_in
        self._counted_out += moved_out
        least = self.limits.bytes_per_s * self.limits.tick_s
        is_reading = self._is_in_body and not self.flow.read_paused
        return (is_reading and moved_in < least) or (waiting > 0 and moved_out < least)

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer on the bare connection, where no application has a request, and close it."""
        is_answering = self._give_up_request()
        has_begun = self._head_bytes > 0 or self._head_since_s is None
        if not is_answering and (has_begun or status != HTTPStatus.REQUEST_TIMEOUT):
            request_id = new_id()
            told = {"id": request_id, "code": code, "client": self._peer()}
            LOG.warning("connection refused", extra={"fields": told})
            self._out.write(bare_problem(status, code, detail, request_id))
        self.transport.close()

    def _give_up_request(self) -> bool:
        """Tell a request in progress that its client is gone; whether its answer had begun."""
        if not self._has_request():
            return False
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return self.cycle.response_started

    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _end_unread(self) -> None:
        self._cut("the body goes on after its answer")

    def _spare(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _cut(self, reason: str) -> None:
        told = {"reason": reason, "client": self._peer()}
        LOG.warning("connection cut", extra={"fields": told})
        self._out.abort()

    def _peer(self) -> str | None:
        return self.client[0] if self.client else None


class CountedTransport:
    """A transport that knows how much it was given; all else is the transport's own."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.handed = 0

    def write(self, data: bytes) -> None:
        """Count and write."""
        self.handed += len(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def bare_problem(status: int, code: str, detail: str, request_id: str) -> bytes:
    """A whole HTTP answer with a problem document, after which the connection ends."""
    body = problem_document(status, code, detail, request_id).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        f"x-request-id: {request_id}",
        *(["retry-after: 1"] if status == HTTPStatus.SERVICE_UNAVAILABLE else []),
        "connection: close",
    )
    return "\r\n".join((*head, "", "")).encode() + body


def protocol_of(limits: ConnectionLimits) -> type[BoundedProtocol]:
    """The protocol with a deployment's limits, as uvicorn makes one for each connection."""
    return type("LimitedProtocol", (BoundedProtocol,), {"limits": limits})
