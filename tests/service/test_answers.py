from __future__ import annotations

import asyncio

import pytest
from starlette.responses import Response, StreamingResponse

from service.answers import PIECE_BYTES, PacedAnswers


def messages_of(response: Response) -> list[dict[str, object]]:
    """What a server gets of an answer that is handed out in pieces."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "headers": [], "asgi": {"spec_version": "2.4"}}
    asyncio.run(PacedAnswers(response)(scope, receive, send))
    return sent[1:]


@pytest.mark.parametrize("size", [0, 10, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_an_answer_arrives_whole_in_pieces_of_which_the_last_says_so(size):
    whole = bytes(range(256)) * (size // 256 + 1)

    messages = messages_of(Response(whole[:size]))

    assert b"".join(one["body"] for one in messages) == whole[:size]
    assert max(len(one["body"]) for one in messages) <= PIECE_BYTES
    assert [one.get("more_body", False) for one in messages] == [True] * (len(messages) - 1) + [
        False
    ]


def test_a_stream_goes_on_after_a_long_part():
    parts = [bytes(PIECE_BYTES + 5), b"end"]

    messages = messages_of(StreamingResponse(iter(parts)))

    assert b"".join(one["body"] for one in messages) == b"".join(parts)
    assert [one["more_body"] for one in messages] == [True, True, True, False]


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/none", "/detect", "/metrics"])
def test_every_answer_keeps_browsers_from_guessing_framing_and_storing(client, path):
    headers = client.get(path).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "strict-transport-security" not in headers
    assert "server" not in headers


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_page_for_people_may_load_what_it_loads_and_is_framed_by_nobody(client, page):
    answer = client.get(page)

    policy = dict(
        rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";")
    )
    assert policy["frame-ancestors"] == "'none'"
    assert "<script>" not in answer.text or "'unsafe-inline'" in policy["script-src"]
    assert "'self'" in policy["script-src"]
    assert policy["default-src"] == "'self'"


def test_https_alone_is_told_to_stay_https(client):
    secure = client.get("https://testserver/v2")

    assert secure.headers["strict-transport-security"] == "max-age=31536000"
