"""What every answer gets on its way out: headers for browsers, and pieces that must be taken."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOTHING = "default-src 'none'; frame-ancestors 'none'"
A_PAGE = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src 'self' blob:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""The pages for people hold their own scripts, and load nothing from elsewhere."""
A_YEAR_S = 365 * 24 * 3600
PIECE_BYTES = 256 * 1024


class SecurityHeaders:
    """Headers that keep a browser from guessing types, framing, caching and telling where from."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                is_page = headers.get("content-type", "").startswith("text/html")
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Content-Security-Policy"] = A_PAGE if is_page else NOTHING
                headers.setdefault("Cache-Control", "no-store")
                if scope["scheme"] == "https":
                    headers["Strict-Transport-Security"] = f"max-age={A_YEAR_S}"
            await send(message)

        await self.app(scope, receive, send_with_headers)


class PacedAnswers:
    """Hand a long answer out in pieces, the next when the last is nearly taken.

    Handed out whole it would lie in its connection, where neither the request's place nor its
    deadline counts it any more.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def send_in_pieces(message: Message) -> None:
            body = message.get("body", b"")
            if message["type"] != "http.response.body" or len(body) <= PIECE_BYTES:
                await send(message)
                return
            whole, has_more = memoryview(body), message.get("more_body", False)
            for start in range(0, len(whole), PIECE_BYTES):
                is_last = start + PIECE_BYTES >= len(whole)
                piece = bytes(whole[start : start + PIECE_BYTES])
                more_body = has_more or not is_last
                await send({"type": message["type"], "body": piece, "more_body": more_body})

        await self.app(scope, receive, send_in_pieces)
