from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from fastapi import Request, Response
from starlette.responses import StreamingResponse

from service.records.replays import (
    Claim,
    IdempotencyInProgress,
    IdempotencyMismatch,
    Kept,
    Replays,
    claim_of,
)
from service.uploads import Upload

PNG = {"Content-Type": "image/png"}
CLAIM = Claim("key", "request")


class Shelf(dict[str, Kept]):
    """Keeps what a database would."""

    def keep(self, answer: Kept) -> None:
        self[answer.claim.key] = answer

    async def find(self, key: str) -> Kept | None:
        return self.get(key)


def replays_of(max_bytes: int = 100, clock: SimpleNamespace | None = None, shelf=None) -> Replays:
    now = clock or SimpleNamespace(s=0.0)
    return Replays(
        shelf if shelf is not None else Shelf(),
        keep_s=60,
        max_bytes=max_bytes,
        clock_s=lambda: now.s,
    )


def claimed(replays: Replays, claim: Claim = CLAIM):
    return asyncio.run(replays.claim(claim))


def kept(replays: Replays, claim: Claim, body: bytes) -> None:
    assert claimed(replays, claim) is None
    replays.keep(claim, Response(body, media_type="application/json"))
    replays.release(claim)


def request_of(
    path: str = "/detect", query: str = "", headers: dict[str, str] | None = None
) -> Request:
    raw = [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()]
    about = {"type": "http", "method": "POST", "path": path, "query_string": query.encode()}
    return Request(about | {"headers": raw, "server": ("x", 80), "scheme": "http"})


def test_a_kept_answer_is_found_again():
    replays = replays_of()

    kept(replays, CLAIM, b"body")

    assert claimed(replays).body == b"body"


def test_a_request_that_still_runs_is_not_begun_again():
    replays = replays_of()
    claimed(replays)

    with pytest.raises(IdempotencyInProgress):
        claimed(replays)


def test_a_request_that_ended_without_an_answer_may_run_again():
    replays = replays_of()
    claimed(replays)

    replays.release(CLAIM)

    assert claimed(replays) is None


def test_a_key_of_another_request_is_refused_while_it_runs_and_afterwards():
    replays = replays_of()
    claimed(replays)
    with pytest.raises(IdempotencyMismatch):
        claimed(replays, Claim("key", "other"))

    replays.keep(CLAIM, Response(b"body"))

    with pytest.raises(IdempotencyMismatch):
        claimed(replays, Claim("key", "other"))


def test_an_answer_is_forgotten_after_its_time():
    clock = SimpleNamespace(s=0.0)
    replays = replays_of(clock=clock)
    kept(replays, CLAIM, b"body")

    clock.s = 60.0

    assert claimed(replays) is None


def test_an_answer_survives_a_restart_on_the_shelf():
    shelf, clock = Shelf(), SimpleNamespace(s=0.0)
    kept(replays_of(shelf=shelf), CLAIM, b"body")
    restarted = replays_of(shelf=shelf, clock=clock)

    found = claimed(restarted)
    with pytest.raises(IdempotencyMismatch):
        claimed(restarted, Claim("key", "other"))
    clock.s = 60.0

    assert found.body == b"body"
    assert claimed(restarted) is None


def test_the_oldest_answers_make_room():
    shelf = Shelf()
    replays = replays_of(max_bytes=10, shelf=shelf)

    for key in "abc":
        kept(replays, Claim(key, "request"), b"12345")
    shelf.clear()

    assert claimed(replays, Claim("a", "request")) is None
    assert claimed(replays, Claim("c", "request")).body == b"12345"


def test_an_answer_longer_than_all_room_is_not_kept_and_drives_out_no_other():
    replays = replays_of(max_bytes=10)
    kept(replays, CLAIM, b"12345")

    kept(replays, Claim("long", "request"), b"12345678901")

    assert claimed(replays).body == b"12345"
    assert claimed(replays, Claim("long", "request")) is None


@pytest.mark.parametrize(
    ("chunks", "is_kept"), [([b"12", b"34"], True), ([b"12", b"9" * 9], False)]
)
def test_a_stream_is_kept_when_it_has_ended_and_was_not_too_long(chunks, is_kept):
    replays = replays_of(max_bytes=10)

    async def stream():
        for chunk in chunks:
            yield chunk

    async def read(response):
        return [chunk async for chunk in response.body_iterator]

    answer = replays.keep(CLAIM, StreamingResponse(stream()))
    passed_on = asyncio.run(read(answer))

    assert passed_on == chunks
    assert (claimed(replays) is not None) == is_kept


def test_streams_in_progress_share_one_room_and_give_it_back():
    replays = replays_of(max_bytes=8)
    claims = [Claim(key, "request") for key in "abc"]

    async def stream():
        yield b"123"
        yield b"456"

    async def interleave():
        streams = [
            replays.keep(claim, StreamingResponse(stream())).body_iterator for claim in claims
        ]
        for one in streams:
            await anext(one)
        await streams[0].aclose()  # its reader went away
        return [[chunk async for chunk in one] for one in streams[1:]]

    rests = asyncio.run(interleave())
    is_kept = [claimed(replays, claim) is not None for claim in claims]

    assert rests == [[b"456"]] * 2
    assert is_kept == [False, True, False]


@pytest.mark.parametrize(
    "other",
    [
        {"path": "/synthesize"},
        {"query": "n=4"},
        {"headers": {"Accept": "application/zip"}},
    ],
)
def test_another_path_query_or_accept_is_another_request_under_the_same_key(other):
    upload = Upload(b"image")

    first, second = (
        claim_of(request, "k", upload) for request in (request_of(), request_of(**other))
    )

    assert first.key == second.key
    assert first.request != second.request


def test_another_picture_or_mask_is_another_request():
    uploads = [Upload(b"a"), Upload(b"b"), Upload(b"a", b"m")]

    claims = [claim_of(request_of(), "k", upload) for upload in uploads]

    assert len({claim.request for claim in claims}) == 3


def test_the_order_of_parameters_makes_no_difference():
    one, other = (
        claim_of(request_of(query=query), "k", Upload(b"")) for query in ("n=4&x=1", "x=1&n=4")
    )

    assert one == other


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_two_callers_never_meet(header):
    claims = [claim_of(request_of(headers={header: who}), "k", Upload(b"")) for who in ("a", "b")]

    assert claims[0].key != claims[1].key


def test_a_request_sent_twice_is_answered_once(client, red_square_png):
    again = {"Idempotency-Key": "k-1"}
    forms = [{"files": {"image": red_square_png}, "headers": again} for _ in range(2)]

    first, second = (client.post("/detect?part_id=A", **form) for form in forms)

    assert first.status_code == second.status_code == 200
    assert first.content == second.content
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.headers["Content-Type"] == first.headers["Content-Type"]
    assert second.headers["X-Request-Id"] != first.headers["X-Request-Id"]
    assert (
        b'flawsmith_defects_total{label="pit",product="tiny"} 1.0' in client.get("/metrics").content
    )


def test_a_zip_is_replayed_byte_for_byte(client, normal_png):
    headers = PNG | {"Idempotency-Key": "z", "Accept": "application/zip"}

    first, second = (
        client.post("/synthesize?count=2", content=normal_png, headers=headers) for _ in range(2)
    )

    assert first.content.startswith(b"PK")
    assert first.content == second.content
    assert second.headers["Content-Type"] == "application/zip"


def test_a_used_key_with_another_picture_is_a_problem_document(client, red_square_png, normal_png):
    headers = PNG | {"Idempotency-Key": "k"}
    client.post("/detect", content=red_square_png, headers=headers)

    answer = client.post("/detect", content=normal_png, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")


def test_a_refused_request_frees_its_key(client, red_square_png):
    headers = PNG | {"Idempotency-Key": "k"}
    refused = client.post("/detect", content=red_square_png[:60], headers=headers)

    answer = client.post("/detect", content=red_square_png, headers=headers)

    assert (refused.status_code, answer.status_code) == (422, 200)


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
def test_a_key_that_is_no_word_is_refused_by_name(client, red_square_png, key):
    answer = client.post("/detect", content=red_square_png, headers=PNG | {"Idempotency-Key": key})

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("Idempotency-Key")


def test_a_second_request_while_the_first_runs_is_told_so(serve, red_square_png):
    client = serve(workers=2)
    replays = client.app.state.services.replays
    request = request_of("/detect", headers={"accept": client.headers["accept"]})
    claimed(replays, claim_of(request, "k", Upload(red_square_png)))

    answer = client.post("/detect", content=red_square_png, headers=PNG | {"Idempotency-Key": "k"})

    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_in_progress")
