"""A typed client for the service, waiting or awaiting; `client*.py` need httpx2 and nothing else.

with Client("http://127.0.0.1:8000") as client:
    detection = client.detect(Path("plate.jpg"), product="brushed-plate")
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

import httpx2

from service.client_calls import (
    AnswerUnreadable,
    Call,
    Outcome,
    Reply,
    Retry,
    Send,
    Sink,
    steps_of,
)
from service.client_types import (
    Detection,
    DetectionAsked,
    Synthesis,
    SynthesisAsked,
    read_detection,
    read_synthesis,
)

Picture = bytes | Path
"""An encoded picture, or its file."""
Read = TypeVar("Read")
DETECT, SYNTHESIZE, READY = "/detect", "/synthesize", "/v2/health/ready"
CHUNK_BYTES = 65536
THREAD_BYTES = 1024**2
"""Of an answer, before it is worth a thread to write it away."""
CONNECT_S = 5.0
RETRY = Retry()


class Client:
    """A client that waits. Safe to use from several threads.

    A call is tried again when the service is busy, not ready or out of reach, for `timeout_s` in
    all: the service is told what is left of it, and a request that reached it twice is answered
    once.

    Errors of each call: Problem and its kinds Unauthorized, Busy, NotReady and DeadlineExceeded;
    Unreachable; DeadlineOver; AnswerUnreadable. All are ClientError.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        retry: Retry = RETRY,
        verify: bool | ssl.SSLContext = True,
    ) -> None:
        self._timeout_s = timeout_s
        self._retry = retry
        self._http = httpx2.Client(base_url=url, headers=key_header(api_key), verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of its connections."""
        self._http.close()

    def is_ready(self) -> bool:
        """Whether the service welcomes requests now; tried once."""
        try:
            return self._http.get(READY, timeout=CONNECT_S).status_code == httpx2.codes.OK
        except httpx2.RequestError:
            return False

    def detect(
        self, image: Picture, *, timeout_s: float | None = None, **asked: Unpack[DetectionAsked]
    ) -> Detection:
        """Find the defects of one picture."""
        limit_s = limit_of(timeout_s, self._timeout_s)
        call = Call.of(DETECT, {"image": image}, asked, limit_s)
        return read_reply(self._make(call), read_detection)

    def synthesize(
        self,
        image: Picture,
        mask: Picture | None = None,
        *,
        timeout_s: float | None = None,
        **asked: Unpack[SynthesisAsked],
    ) -> Synthesis:
        """Put new defects on a normal picture, or one into a mask of its size."""
        limit_s = limit_of(timeout_s, self._timeout_s)
        call = Call.of(SYNTHESIZE, parts_of(image, mask), asked, limit_s)
        return read_reply(self._make(call), read_synthesis)

    def download(
        self,
        into: Path,
        image: Picture,
        mask: Picture | None = None,
        *,
        timeout_s: float | None = None,
        **asked: Unpack[SynthesisAsked],
    ) -> Path:
        """The same as a zip with COCO annotations, written as it comes; the file appears whole."""
        limit_s = limit_of(timeout_s, self._timeout_s)
        call = Call.of(SYNTHESIZE, parts_of(image, mask), asked, limit_s, into)
        self._make(call)
        return into

    def _make(self, call: Call) -> Reply:
        steps = steps_of(call, self._retry)
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return reply_of(end)
            if isinstance(step, Send):
                outcome = self._send(step)
            else:
                time.sleep(step.seconds)

    def _send(self, send: Send) -> Outcome:
        until_s = time.monotonic() + send.left_s
        body = in_time(send.call.body, until_s)
        try:
            with (
                self._http.stream("POST", send.call.path, content=body, **wire(send)) as response,
                Sink(response, send.call.into, until_s) as sink,
            ):
                for chunk in response.iter_bytes():
                    sink.take(chunk)
                return sink.reply()
        except httpx2.RequestError as error:
            return error


class AsyncClient:
    """The same client, awaited, for asyncio; files, forms and answers are not read on its loop."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        retry: Retry = RETRY,
        verify: bool | ssl.SSLContext = True,
    ) -> None:
        self._timeout_s = timeout_s
        self._retry = retry
        self._http = httpx2.AsyncClient(base_url=url, headers=key_header(api_key), verify=verify)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of its connections."""
        await self._http.aclose()

    async def is_ready(self) -> bool:
        """Whether the service welcomes requests now; tried once."""
        try:
            answer = await self._http.get(READY, timeout=CONNECT_S)
        except httpx2.RequestError:
            return False
        return answer.status_code == httpx2.codes.OK

    async def detect(
        self, image: Picture, *, timeout_s: float | None = None, **asked: Unpack[DetectionAsked]
    ) -> Detection:
        """As `Client.detect`."""
        limit_s = limit_of(timeout_s, self._timeout_s)
        call = await asyncio.to_thread(Call.of, DETECT, {"image": image}, asked, limit_s)
        return await asyncio.to_thread(read_reply, await self._make(call), read_detection)

    async def synthesize(
        self,
        image: Picture,
        mask: Picture | None = None,
        *,
        timeout_s: float | None = None,
        **asked: Unpack[SynthesisAsked],
    ) -> Synthesis:
        """As `Client.synthesize`."""
        limit_s = limit_of(timeout_s, self._timeout_s)
        parts = parts_of(image, mask)
        call = await asyncio.to_thread(Call.of, SYNTHESIZE, parts, asked, limit_s)
        return await asyncio.to_thread(read_reply, await self._make(call), read_synthesis)

    async def download(
        self,
        into: Path,
        image: Picture,
        mask: Picture | None = None,
        *,
        timeout_s: float | None = None,
        **asked: Unpack[SynthesisAsked],
    ) -> Path:
        """As `Client.download`."""
        limit_s, parts = limit_of(timeout_s, self._timeout_s), parts_of(image, mask)
        call = await asyncio.to_thread(Call.of, SYNTHESIZE, parts, asked, limit_s, into)
        await self._make(call)
        return into

    async def _make(self, call: Call) -> Reply:
        steps = steps_of(call, self._retry)
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return reply_of(end)
            if isinstance(step, Send):
                outcome = await self._send(step)
            else:
                await asyncio.sleep(step.seconds)

    async def _send(self, send: Send) -> Outcome:
        until_s, body = time.monotonic() + send.left_s, send.call.body
        try:
            async with (
                asyncio.timeout(send.left_s),
                self._http.stream("POST", send.call.path, content=body, **wire(send)) as response,
            ):
                with Sink(response, send.call.into, until_s) as sink:
                    async for chunk in response.aiter_bytes(THREAD_BYTES):
                        await asyncio.to_thread(sink.take, chunk)
                    return await asyncio.to_thread(sink.reply)
        except TimeoutError:
            return httpx2.ReadTimeout("no answer within the call's time")
        except httpx2.RequestError as error:
            return error


def key_header(api_key: str | None) -> dict[str, str]:
    """How a key is sent."""
    return {} if api_key is None else {"X-API-Key": api_key}


def parts_of(image: Picture, mask: Picture | None) -> dict[str, Picture]:
    """The form's parts; without a mask there is no form."""
    return {"image": image} if mask is None else {"image": image, "mask": mask}


def limit_of(timeout_s: float | None, otherwise_s: float) -> float:
    """The time of one call: its own, or the client's."""
    return otherwise_s if timeout_s is None else timeout_s


def wire(send: Send) -> dict[str, Any]:
    """What both kinds of client tell httpx about one try."""
    timeout = httpx2.Timeout(send.left_s, connect=min(CONNECT_S, send.left_s))
    return {"params": send.call.query, "headers": send.headers(), "timeout": timeout}


def in_time(body: bytes, until_s: float) -> Iterator[bytes]:
    """The body in pieces. Errors: WriteTimeout for one that is sent after the deadline."""
    for start in range(0, len(body), CHUNK_BYTES):
        if time.monotonic() > until_s:
            raise httpx2.WriteTimeout("the picture was sent too slowly")
        yield body[start : start + CHUNK_BYTES]


def reply_of(end: StopIteration) -> Reply:
    """What the steps of a call returned."""
    reply: Reply = end.value
    return reply


def read_reply(reply: Reply, read: Callable[[Any], Read]) -> Read:
    """A typed answer. Errors: AnswerUnreadable."""
    try:
        return read(json.loads(reply.body))
    except (ValueError, KeyError, TypeError) as error:
        raise AnswerUnreadable("the answer is not one of this service") from error
