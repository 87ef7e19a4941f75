from __future__ import annotations

import json
import math

import httpx2
import pytest

from service.client_calls import (
    Busy,
    Call,
    ClientError,
    DeadlineOver,
    NotReady,
    Problem,
    Reply,
    Retry,
    Send,
    Sink,
    Unreachable,
    Wait,
    steps_of,
)


class Clock:
    """Time that passes when a call waits or sends."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def call(timeout_s=10.0, **query):
    return Call.of("/detect", {"image": b"x"}, query, timeout_s)


def refusal(status, code="some", **headers):
    return Reply(status, headers, json.dumps({"code": code, "detail": "why"}).encode())


def told_by(outcomes, *, timeout_s=10.0, retry=None, send_s=0.0):
    """What a call asks to be done, and its answer or error, for what comes of each try."""
    clock, asked = Clock(), []
    steps = steps_of(call(timeout_s), retry or Retry(), clock_s=clock, draw=lambda: 1.0)
    left = iter(outcomes)
    outcome = None
    while True:
        try:
            step = steps.send(outcome)
        except StopIteration as end:
            return asked, end.value
        except ClientError as error:
            return asked, error
        asked.append(step)
        if isinstance(step, Wait):
            clock.now_s += step.seconds
        else:
            clock.now_s += send_s
            outcome = next(left)


GOOD = Reply(200, {}, b"{}")


def test_an_answer_at_once_is_tried_once():
    asked, answer = told_by([GOOD])

    assert answer is GOOD
    assert [type(step) for step in asked] == [Send]


def test_waits_double_up_to_the_longest_and_come_after_what_the_service_asks():
    busy = refusal(429, **{"retry-after": "2"})

    asked, answer = told_by([busy, busy, busy, GOOD], retry=Retry(first_s=0.5, most_s=1.0))

    assert answer is GOOD
    assert [step.seconds for step in asked if isinstance(step, Wait)] == [2.5, 3.0, 3.0]


def test_the_time_that_is_left_shrinks_with_every_try():
    asked, _ = told_by([refusal(503), GOOD], send_s=3.0, retry=Retry(first_s=1.0))

    assert [step.left_s for step in asked if isinstance(step, Send)] == [10.0, 6.0]


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (refusal(429), Busy),
        (refusal(503), NotReady),
        (httpx2.ConnectError("refused"), Unreachable),
        (httpx2.RemoteProtocolError("cut"), Unreachable),
        (refusal(409, "idempotency_in_progress"), Problem),
    ],
    ids=repr,
)
def test_what_may_pass_is_tried_until_the_tries_are_over(outcome, error):
    asked, end = told_by([outcome] * 3, retry=Retry(tries=3, first_s=0.1))

    assert isinstance(end, error)
    assert [type(step) for step in asked] == [Send, Wait, Send, Wait, Send]


@pytest.mark.parametrize(
    "outcome",
    [
        refusal(401),
        refusal(404),
        refusal(409),
        refusal(422),
        refusal(500),
        refusal(504),
        httpx2.ReadTimeout(""),
        httpx2.UnsupportedProtocol(""),
        httpx2.DecodingError(""),
    ],
    ids=repr,
)
def test_what_will_not_pass_is_tried_once(outcome):
    asked, end = told_by([outcome])

    assert isinstance(end, ClientError)
    assert [type(step) for step in asked] == [Send]


@pytest.mark.parametrize("retry_after", ["11", "9999999"])
def test_no_wait_is_begun_that_ends_after_the_deadline(retry_after):
    asked, end = told_by([refusal(429, **{"retry-after": retry_after})])

    assert isinstance(end, Busy)
    assert [type(step) for step in asked] == [Send]


@pytest.mark.parametrize("retry_after", ["", "soon", "-1", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_retry_after_that_is_no_number_of_seconds_is_passed_over(retry_after):
    asked, _ = told_by([refusal(429, **{"retry-after": retry_after}), GOOD])

    assert [step.seconds for step in asked if isinstance(step, Wait)] == [0.2]


def test_a_call_without_time_is_over():
    _, end = told_by([], timeout_s=0.0)

    assert isinstance(end, DeadlineOver)


def test_a_problem_tells_status_word_detail_and_request():
    _, end = told_by([refusal(422, "image_too_small", **{"x-request-id": "7"})])

    assert (end.status, end.code, end.detail, end.request_id) == (
        422,
        "image_too_small",
        "why",
        "7",
    )


def test_a_504_is_a_deadline_and_a_problem():
    _, end = told_by([refusal(504)])

    assert isinstance(end, DeadlineOver)
    assert isinstance(end, Problem)


def test_a_call_has_one_id_and_another_call_another():
    one = call()

    first, again = Send(one, 5.0).headers(), Send(one, 1.0).headers()

    assert first["Idempotency-Key"] == again["Idempotency-Key"] == first["X-Request-Id"]
    assert (first["X-Request-Timeout-Ms"], again["X-Request-Timeout-Ms"]) == ("5000", "1000")
    assert call().id != one.id


def test_the_time_left_is_a_number_that_the_service_takes():
    limits = [Send(call(), left_s).headers()["X-Request-Timeout-Ms"] for left_s in (1e-9, 1e99)]

    assert limits == ["1", str(2**31 - 1)]


def test_two_answers_on_their_way_into_one_file_do_not_meet(tmp_path):
    into = tmp_path / "made.zip"
    response = httpx2.Response(200)

    with Sink(response, into, math.inf) as first, Sink(response, into, math.inf) as second:
        first.take(b"the first")
        second.take(b"another")
        first.reply()
        assert into.read_bytes() == b"the first"
        second.reply()

    assert into.read_bytes() == b"another"
    assert list(tmp_path.iterdir()) == [into]


def test_what_is_not_asked_is_not_sent_and_zones_are_json():
    asked = call(n=3, product=None, rules=[{"label": "pit"}], audit=False)

    assert asked.query == {"n": 3, "rules": '[{"label": "pit"}]', "audit": False}


def test_a_file_is_read_and_two_pictures_are_a_form(tmp_path):
    (tmp_path / "part.png").write_bytes(b"picture")

    one = Call.of("/x", {"image": tmp_path / "part.png"}, {}, 1.0)
    two = Call.of("/x", {"image": b"picture", "mask": b"mask"}, {}, 1.0)

    assert (one.body, one.headers["Content-Type"]) == (b"picture", "application/octet-stream")
    assert two.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert two.headers["Content-Length"] == str(len(two.body))
    assert b'name="mask"' in two.body
