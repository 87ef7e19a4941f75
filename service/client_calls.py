"""What a client sends, how often it tries, and what its errors are: values, and no network.

A call is a generator. It yields what is to be done next, a `Send` or a `Wait`, takes what came of
it, and returns the answer; `service/client.py` drives it, waiting or awaiting.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

Query = Mapping[str, Any]


UNSENDABLE = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
"""Errors of the caller's own: a wrong URL, a key that fits into no header."""
MAX_MS = 2**31 - 1


class ClientError(Exception):
    """Whatever a call can end with, but an answer."""


class Unreachable(ClientError):
    """The service could not be reached, or the connection broke, each time that was tried."""

    def __init__(self, error: httpx2.RequestError) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.may_pass = not isinstance(error, UNSENDABLE)


class DeadlineOver(ClientError):
    """The call's time was over before an answer came."""


class AnswerUnreadable(ClientError):
    """The answer is not one of this service."""


class Problem(ClientError):
    """The service refused: `status`, a stable word `code`, `detail`, `request_id` of its log."""

    def __init__(self, reply: Reply) -> None:
        document = _document(reply.body)
        self.status = reply.status
        self.code = str(document.get("code", "http_error"))
        self.detail = str(document.get("detail", "not from the service itself"))
        self.request_id = reply.headers.get("x-request-id", "")
        super().__init__(f"{self.status} {self.code}: {self.detail} (request {self.request_id})")


class Unauthorized(Problem):
    """401 or 403: no key that fits."""


class Busy(Problem):
    """429, for as long as it was tried."""


class NotReady(Problem):
    """503, for as long as it was tried: starting, stopping, or its device is lost."""


class DeadlineExceeded(Problem, DeadlineOver):
    """504: the service saw that the time was over, before this side did."""


PROBLEMS: Mapping[int, type[Problem]] = {
    401: Unauthorized,
    403: Unauthorized,
    429: Busy,
    503: NotReady,
    504: DeadlineExceeded,
}
IN_PROGRESS = "idempotency_in_progress"
"""Code of a 409: the try before has reached the service, and is still computed."""


@dataclass(frozen=True)
class Retry:
    """How often a call is tried, and how long it waits in between.

    The wait after try i is drawn from 0 to first_s × 2^(i − 1), at most most_s, and added to what
    the service asks for in `Retry-After`: who was refused together does not return together.
    """

    tries: int = 8
    first_s: float = 0.2
    most_s: float = 5.0

    def wait_s(self, done: int, asked_s: float, draw: Callable[[], float]) -> float:
        """The wait after so many tries."""
        return asked_s + draw() * min(self.most_s, self.first_s * 2.0 ** (done - 1))


@dataclass(frozen=True)
class Call:
    """One request, whole and encoded. Its id is its Idempotency-Key too: the same in every try."""

    path: str
    query: Query
    body: bytes
    headers: Mapping[str, str]
    timeout_s: float
    into: Path | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @classmethod
    def of(
        cls,
        path: str,
        parts: Mapping[str, bytes | Path],
        query: Query,
        timeout_s: float,
        into: Path | None = None,
    ) -> Call:
        """From the pictures, as bytes or files; one alone is sent as it is, two as a form."""
        read = {name: _read(part) for name, part in parts.items()}
        form = httpx2.Request("POST", "http://form", files=read) if len(read) > 1 else None
        headers = {"Content-Type": "application/octet-stream"}
        if form is not None:
            headers = {"Content-Type": form.headers["content-type"]}
        body = read["image"] if form is None else form.read()
        accept = "application/json" if into is None else "application/zip"
        headers |= {"Accept": accept, "Content-Length": str(len(body))}
        return cls(path, _as_text(query), body, headers, timeout_s, into)


@dataclass(frozen=True)
class Send:
    """Send the call once more, in the time that is left."""

    call: Call
    left_s: float

    def headers(self) -> dict[str, str]:
        """The call's headers with what is left of its time."""
        told = {"X-Request-Id": self.call.id, "Idempotency-Key": self.call.id}
        limit = {"X-Request-Timeout-Ms": str(min(MAX_MS, max(1, int(1e3 * self.left_s))))}
        return {**self.call.headers, **told, **limit}


@dataclass(frozen=True)
class Wait:
    """Wait before the next try."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """What came back; the body is empty where it went into a file."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Outcome = Reply | httpx2.RequestError | None
Steps = Generator[Send | Wait, Outcome, Reply]


def steps_of(
    call: Call,
    retry: Retry,
    *,
    clock_s: Callable[[], float] = time.monotonic,
    draw: Callable[[], float] = random.random,
) -> Steps:
    """Try a call until it is answered, refused for good, or its time or tries are over.

    A wait that would end after the deadline is not begun.

    Errors: Problem, Unreachable, DeadlineOver, AnswerUnreadable.
    """
    until_s = clock_s() + call.timeout_s
    for done in range(1, retry.tries + 1):
        left_s = until_s - clock_s()
        if left_s <= 0.0:
            break
        outcome = yield Send(call, left_s)
        if isinstance(outcome, Reply) and outcome.status == httpx2.codes.OK:
            return outcome
        failure = _failure(outcome)
        wait_s = retry.wait_s(done, _retry_after_s(outcome), draw)
        is_last = done == retry.tries or clock_s() + wait_s >= until_s
        if is_last or not _may_pass(failure):
            raise failure
        yield Wait(wait_s)
    raise DeadlineOver(f"no answer within {call.timeout_s:g} s")


class Sink:
    """Where a response's bytes go as they come: together, or into a file that appears when whole.

    Errors: ReadTimeout for bytes that come after the deadline.
    """

    def __init__(self, response: httpx2.Response, into: Path | None, until_s: float) -> None:
        is_saved = into is not None and response.status_code == httpx2.codes.OK
        self._response = response
        self._until_s = until_s
        self._into = into if is_saved else None
        self._part = _part_of(into) if into and is_saved else None
        self._file = self._part.open("xb") if self._part else BytesIO()

    def __enter__(self) -> Self:
        return self

    def take(self, chunk: bytes) -> None:
        """The next bytes."""
        if time.monotonic() > self._until_s:
            raise httpx2.ReadTimeout("the answer came too slowly")
        self._file.write(chunk)

    def reply(self) -> Reply:
        """All of it has come."""
        body = self._file.getvalue() if isinstance(self._file, BytesIO) else b""
        self._file.close()
        if self._part and self._into:
            self._part.replace(self._into)
        return Reply(self._response.status_code, self._response.headers, body)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._part:
            self._part.unlink(missing_ok=True)


def _part_of(into: Path) -> Path:
    """A file beside it, for one answer alone: another may be on its way there."""
    return into.with_name(f".{into.name}.{uuid.uuid4().hex}.part")


def _failure(outcome: Outcome) -> ClientError:
    if isinstance(outcome, Reply):
        return PROBLEMS.get(outcome.status, Problem)(outcome)
    if isinstance(outcome, httpx2.ReadTimeout | httpx2.WriteTimeout):
        return DeadlineOver("no answer within the call's time")
    if isinstance(outcome, httpx2.DecodingError):
        return AnswerUnreadable("the answer is not encoded as it says")
    assert outcome is not None  # a driver's answer to a Send
    return Unreachable(outcome)


def _may_pass(failure: ClientError) -> bool:
    if isinstance(failure, Unreachable):
        return failure.may_pass
    is_in_progress = isinstance(failure, Problem) and failure.code == IN_PROGRESS
    return is_in_progress or isinstance(failure, Busy | NotReady)


def _retry_after_s(outcome: Outcome) -> float:
    text = outcome.headers.get("retry-after", "") if isinstance(outcome, Reply) else ""
    return float(text) if text.isdecimal() else 0.0


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _read(part: bytes | Path) -> bytes:
    return part.read_bytes() if isinstance(part, Path) else part


def _as_text(query: Query) -> dict[str, Any]:
    """Zones and rules as JSON; what is None is not asked."""
    return {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in query.items()
        if value is not None
    }
