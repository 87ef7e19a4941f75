"""Inspections as MQTT messages, QoS 1: told again until the broker has said that it has them."""

from __future__ import annotations

import threading
from string import Formatter
from urllib.parse import unquote

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from service.records.addresses import address_of
from service.records.inspections import Record
from service.records.outboxes import Away

PORTS = {"mqtt": 1883, "mqtts": 8883}
TOPIC_FIELDS = {"product", "version", "verdict", "decision"}
TIMEOUT_S = 5.0
KEEP_ALIVE_S = 30


class Broker:
    """One broker. A connection that failed is given up with all that it still held.

    So the outbox alone decides what is sent again, and nothing grows here while the broker is away.
    """

    def __init__(self, url: str, topic: str) -> None:
        """Errors: ValueError, which does not repeat the URL: it may hold a password."""
        refusal = "SERVICE_MQTT_URL is mqtt(s)://USER:PASSWORD@HOST:PORT"
        self._parts = address_of(url, tuple(PORTS), refusal)
        if not _is_topic(topic):
            known = " ".join(f"{{{name}}}" for name in sorted(TOPIC_FIELDS))
            raise ValueError(f"SERVICE_MQTT_TOPIC is a topic, in which may stand {known}")
        self._topic = topic
        self._client: Client | None = None

    def deliver(self, records: list[Record]) -> None:
        """Publish them, and wait until the broker has them all. Errors: Away."""
        try:
            client = self._client = self._client or self._connect()
            sent = [client.publish(self._topic_of(one), one.message, qos=1) for one in records]
            for message in sent:
                message.wait_for_publish(TIMEOUT_S)
                if not message.is_published():
                    raise Away("the broker does not confirm")
        except (OSError, ValueError, RuntimeError) as error:
            self.close()
            raise Away(f"{type(error).__name__}: {error}") from None
        except Away:
            self.close()
            raise

    def close(self) -> None:
        """End the connection, if there is one."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _connect(self) -> Client:
        parts = self._parts
        client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        if parts.username:
            client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if parts.scheme == "mqtts":
            client.tls_set()
        answer = Answer()
        client.on_connect = answer.take
        client.connect(parts.hostname or "", parts.port or PORTS[parts.scheme], KEEP_ALIVE_S)
        client.loop_start()
        if (refusal := answer.refusal()) is not None:
            client.loop_stop()
            raise Away(refusal)
        return client

    def _topic_of(self, one: Record) -> str:
        return self._topic.format(**{name: getattr(one, name) for name in TOPIC_FIELDS})


class Answer:
    """What a broker says to a new connection."""

    def __init__(self) -> None:
        self._is_there = threading.Event()
        self._reason: ReasonCode | None = None

    def take(self, *told: object) -> None:
        """paho's on_connect: client, userdata, flags, reason, properties."""
        reason = told[3]
        assert isinstance(reason, ReasonCode)
        self._reason = reason
        self._is_there.set()

    def refusal(self) -> str | None:
        """None for a welcome, else why not."""
        if not self._is_there.wait(TIMEOUT_S) or self._reason is None:
            return "the broker does not answer"
        return str(self._reason) if self._reason.is_failure else None


def _is_topic(topic: str) -> bool:
    try:
        fields = {name for _, name, _, _ in Formatter().parse(topic) if name is not None}
        topic.format(**dict.fromkeys(TOPIC_FIELDS, ""))
    except (ValueError, LookupError):
        return False
    return bool(topic) and fields <= TOPIC_FIELDS and not set(topic) & {"+", "#", "\0"}
