from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64decode, b64encode

import pytest

from service.records.outboxes import Away, Outbox, Refused, close
from service.records.webhook import Webhook, key_of, signature_of
from service.telemetry import Telemetry
from tests.places import Receiver, record, wait_for

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def receiver():
    """A web server; it ends with the test."""
    server = Receiver()
    yield server
    server.stop()


def test_a_signature_is_the_one_of_the_specifications_example():
    signature = signature_of(
        key_of(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}'
    )

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_receiver_can_prove_who_sent_the_message_and_when(receiver):
    one = record(part_id="A-17")

    Webhook(receiver.url, SECRET, clock_s=lambda: 1700000000.9).deliver([one])

    ((headers, body),) = receiver.got
    signed = b".".join([one.id.encode(), b"1700000000", body])
    mac = hmac.digest(b64decode(SECRET.removeprefix("whsec_")), signed, hashlib.sha256)
    assert headers["webhook-id"] == one.id
    assert headers["webhook-timestamp"] == "1700000000"
    assert headers["webhook-signature"] == "v1," + b64encode(mac).decode()
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body)["data"]["part_id"] == "A-17"


@pytest.mark.parametrize("status", [301, 401, 404, 429, 500, 503])
def test_a_receiver_that_may_be_mended_is_away(receiver, status):
    receiver.statuses = [status]

    with pytest.raises(Away, match=str(status)):
        Webhook(receiver.url, SECRET).deliver([record()])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_message_that_is_refused_for_itself_is_not_sent_again(receiver, status):
    receiver.statuses = [status]

    with pytest.raises(Refused):
        Webhook(receiver.url, SECRET).deliver([record()])


def test_a_receiver_that_fails_goes_away_and_returns_gets_every_message(receiver):
    receiver.statuses = [500, 503]
    outbox = Outbox("webhook", Webhook(receiver.url, SECRET).deliver, Telemetry(), max_bytes=10**6)
    first, second = record(), record()

    outbox.put(first, 1)
    wait_for(lambda: len(receiver.got) == 3)
    receiver.stop()
    outbox.put(second, 1)
    wait_for(lambda: outbox.is_away)
    receiver.start()
    wait_for(lambda: len(receiver.got) == 4)
    close([outbox], 5.0)

    assert [headers["webhook-id"] for headers, _ in receiver.got] == [first.id] * 3 + [second.id]


@pytest.mark.parametrize(
    "url", ["", "ftp://h/x", "http://", "https:///x", "http://user:confidential@h/"]
)
def test_a_url_that_is_none_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match="SERVICE_WEBHOOK_URL") as refusal:
        Webhook(url, SECRET)

    assert "confidential" not in str(refusal.value)


@pytest.mark.parametrize(
    "secret", [None, "", "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_" + "A" * 33, SECRET + "!"]
)
def test_a_secret_that_is_none_is_refused_without_repeating_it(secret):
    with pytest.raises(ValueError, match="SERVICE_WEBHOOK_SECRET") as refusal:
        Webhook("http://h/", secret)

    assert "A" * 33 not in str(refusal.value)
