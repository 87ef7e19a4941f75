from __future__ import annotations

import json

import pytest

from service.records.mqtt import Broker
from service.records.outboxes import Away, Outbox, close
from service.telemetry import Telemetry
from tests.places import Mosquitto, Subscriber, free_port, record, wait_for

TOPIC = "plant/{product}/{verdict}"


@pytest.fixture
def mosquitto(tmp_path):
    """A broker; it ends with the test."""
    server = Mosquitto(tmp_path)
    yield server
    server.kill()


def test_an_inspection_is_published_under_its_topic(mosquitto):
    subscriber = Subscriber(mosquitto)
    broker = Broker(mosquitto.url, TOPIC)

    broker.deliver([record(part_id="A-17"), record(verdict="ng")])
    wait_for(lambda: len(subscriber.got) == 2)
    broker.close()
    subscriber.close()

    first, second = subscriber.got
    assert (first.topic, second.topic) == ("plant/tiny/ok", "plant/tiny/ng")
    assert first.qos == 1
    assert json.loads(first.payload)["data"]["part_id"] == "A-17"


def test_a_broker_that_is_killed_and_returns_gets_every_message(mosquitto):
    subscriber = Subscriber(mosquitto)
    broker = Broker(mosquitto.url, TOPIC)
    outbox = Outbox("mqtt", broker.deliver, Telemetry(), max_bytes=10**6, batch=10)
    sent = [record() for _ in range(4)]

    outbox.put(sent[0], 1)
    wait_for(lambda: len(subscriber.got) == 1)
    mosquitto.kill()
    for one in sent[1:]:
        outbox.put(one, 1)
    wait_for(lambda: outbox.is_away)
    mosquitto.start()
    wait_for(lambda: len(told(subscriber)) == 4)
    close([outbox], 5.0)
    broker.close()
    subscriber.close()

    assert told(subscriber) == {one.id for one in sent}


def told(subscriber: Subscriber) -> set[str]:
    """At least once: a message may come twice."""
    return {json.loads(message.payload)["data"]["id"] for message in subscriber.got}


def test_a_wrong_password_is_a_broker_that_is_away(mosquitto):
    broker = Broker(f"mqtt://line:wrong@127.0.0.1:{mosquitto.port}", TOPIC)

    with pytest.raises(Away) as away:
        broker.deliver([record()])

    assert "wrong" not in str(away.value)


def test_a_broker_that_is_not_there_is_away():
    broker = Broker(f"mqtt://127.0.0.1:{free_port()}", TOPIC)

    with pytest.raises(Away):
        broker.deliver([record()])


@pytest.mark.parametrize("url", ["", "http://h", "mqtt://", "h:1883"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="SERVICE_MQTT_URL"):
        Broker(url, TOPIC)


@pytest.mark.parametrize(
    "topic", ["", "a/#", "a/+", "{part_id}", "{product.__class__}", "{}", "{", "{product!x}"]
)
def test_a_topic_that_is_none_is_refused(topic):
    with pytest.raises(ValueError, match="SERVICE_MQTT_TOPIC"):
        Broker("mqtt://h", topic)
