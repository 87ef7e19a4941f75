"""Answers kept under their Idempotency-Key, so that a request sent twice is answered once.

Only a whole answer is kept. A refused or failed request did nothing: its key is free again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from fastapi import Request, Response
from starlette.responses import StreamingResponse

from models.errors import FlawsmithError
from service.uploads import Upload


class IdempotencyMismatch(FlawsmithError):
    """The key belongs to another request."""


class IdempotencyInProgress(FlawsmithError):
    """The same request is being worked on at this moment."""


@dataclass(frozen=True)
class Claim:
    """A request under a key, as two digests; the key's holds the caller, so callers never meet."""

    key: str
    request: str


@dataclass(frozen=True)
class Kept:
    """A whole answer, until when it is kept, and whose it is."""

    claim: Claim
    media_type: str
    body: bytes
    until_s: float


def claim_of(request: Request, key: str, upload: Upload) -> Claim:
    """What a repeated request must have in common with the first: all but its form's boundary."""
    headers, parts = request.headers, (upload.image, upload.mask or b"")
    caller = (headers.get("authorization"), headers.get("x-api-key"))
    asked = (request.method, request.url.path, sorted(request.query_params.multi_items()))
    pictures = [hashlib.sha256(part).hexdigest() for part in parts]
    return Claim(_digest(caller, key), _digest(*asked, headers.get("accept"), *pictures))


class Shelf(Protocol):
    """Where answers survive a restart. It never fails: what is away has and keeps nothing."""

    def keep(self, answer: Kept) -> None:
        """Put it there some time."""

    async def find(self, key: str) -> Kept | None:
        """The answer under a key, however old; soon, or none."""


class Replays:
    """The kept answers of one application. Its methods are for the event loop's thread."""

    def __init__(
        self,
        shelf: Shelf,
        *,
        keep_s: float,
        max_bytes: int,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._shelf = shelf
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        self._clock_s = clock_s
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0
        self._streamed_bytes = 0
        self._running: dict[str, str] = {}

    async def claim(self, claim: Claim) -> Kept | None:
        """The answer that the claim's request once got; None lets it do its work, then `release`.

        Errors: IdempotencyMismatch, IdempotencyInProgress.
        """
        kept = self._find(claim.key)
        if kept is not None:
            _require_same(kept.claim.request, claim)
            return kept
        if claim.key in self._running:
            _require_same(self._running[claim.key], claim)
            raise IdempotencyInProgress("the first request with this key is not answered yet")
        self._running[claim.key] = claim.request
        try:
            kept = await self._shelf.find(claim.key)
            if kept is not None and kept.until_s > self._clock_s():
                _require_same(kept.claim.request, claim)
                self.release(claim)
                return kept
        except BaseException:
            self.release(claim)
            raise
        return None

    def release(self, claim: Claim) -> None:
        """Its request has ended, answered or not."""
        self._running.pop(claim.key, None)

    def keep(self, claim: Claim, response: Response) -> Response:
        """Keep an answer; a stream is kept when it has ended, if it was not too long by then."""
        media_type = response.media_type or ""
        if isinstance(response, StreamingResponse):
            chunks: AsyncIterator[bytes] = response.body_iterator  # type: ignore[assignment]
            response.body_iterator = self._keep_stream(claim, media_type, chunks)
        else:
            self._keep(claim, media_type, bytes(response.body))
        return response

    async def _keep_stream(
        self, claim: Claim, media_type: str, chunks: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        passed: list[bytes] = []
        is_whole = True
        try:
            async for chunk in chunks:
                is_whole = is_whole and self._streamed_bytes + len(chunk) <= self._max_bytes
                if is_whole:
                    passed.append(chunk)
                    self._streamed_bytes += len(chunk)
                else:
                    self._let_go(passed)
                yield chunk
            if is_whole:
                self._keep(claim, media_type, b"".join(passed))
        finally:
            self._let_go(passed)

    def _let_go(self, passed: list[bytes]) -> None:
        """All streams together hold as much as all kept answers may."""
        self._streamed_bytes -= sum(map(len, passed))
        passed.clear()

    def _keep(self, claim: Claim, media_type: str, body: bytes) -> None:
        if len(body) > self._max_bytes:
            return
        if claim.key in self._kept:
            self._forget(claim.key)
        kept = Kept(claim, media_type, body, self._clock_s() + self._keep_s)
        self._shelf.keep(kept)
        self._kept[claim.key] = kept
        self._bytes += len(body)
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._kept)))

    def _find(self, key: str) -> Kept | None:
        kept = self._kept.get(key)
        if kept is not None and kept.until_s <= self._clock_s():
            self._forget(key)
            return None
        return kept

    def _forget(self, key: str) -> None:
        self._bytes -= len(self._kept.pop(key).body)


def replayed(kept: Kept) -> Response:
    """The kept answer once more; its header says that it is not a new one."""
    return Response(kept.body, 200, {"Idempotent-Replayed": "true"}, kept.media_type)


def _require_same(request: str, claim: Claim) -> None:
    if request != claim.request:
        raise IdempotencyMismatch(
            "this Idempotency-Key was sent with another path, query, Accept or picture"
        )


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
