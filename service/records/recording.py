"""How an answer becomes a row and a message: one call, and an outbox for each place it goes to.

    routes/detection.py ── note ──▶ Outbox "database" ──▶ Database.write
                                ├─▶ Outbox "webhook" ───▶ Webhook.deliver
                                └─▶ Outbox "mqtt" ──────▶ Broker.deliver

No place can slow or break an answer, or another place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from models.errors import FlawsmithError
from service.compute.admission import ServiceBusy
from service.extras import SettingRefused, extra_of
from service.records.inspections import Record
from service.records.outboxes import Away, Outbox, close
from service.records.readers import Readers
from service.records.replays import Kept
from service.records.retention import Retention
from service.records.webhook import Webhook
from service.settings import Settings
from service.telemetry import Telemetry

if TYPE_CHECKING:
    from service.records.database import Database
    from service.records.mqtt import Broker

Found = TypeVar("Found")
BATCH = 100
PATIENCE_S = 5.0
"""Time for what still waits when the service stops."""
SHELF_BYTES = 8 * 1024**2
"""A longer answer is kept in memory alone: a database is no place for files."""
QUESTIONS = 4
"""Of the inspection log, at once: those of a place that hangs are counted until they end."""
LOOKUP_THREADS = 4
LOOKUP_S = 0.5
"""Time for a kept answer to be found; the request then runs as one without such an answer."""
REST_S = 5.0
"""After a look-up that failed nobody waits for another one, for so long."""


class RecordsOff(FlawsmithError):
    """This deployment keeps no records."""


class InspectionMissing(FlawsmithError):
    """There is no record of this id."""


@dataclass(frozen=True)
class Places:
    """Where the records of a deployment go. Nothing has been asked of them."""

    database: Database | None
    webhook: Webhook | None
    broker: Broker | None


def open_places(settings: Settings) -> Places:
    """As the settings say. Errors: SettingRefused, by the setting's name, without its value."""
    try:
        return Places(_database(settings), _webhook(settings), _broker(settings))
    except ValueError as error:
        raise SettingRefused(str(error)) from None


class Recording:
    """How the inspections and the kept answers of one application get to their places."""

    def __init__(self, places: Places, settings: Settings, telemetry: Telemetry) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._inspections: list[Outbox[Record]] = []
        self._answers: Outbox[Kept] | None = None
        self._database = places.database
        self._retention: Retention | None = None
        self._broker = places.broker
        self._lookups = Readers("look-up", LOOKUP_THREADS)
        self._questions = Readers("question", QUESTIONS)
        self._rest_until_s = 0.0
        if places.database is not None:
            self._record(places.database)
        if places.webhook is not None:
            self._add("webhook", places.webhook.deliver)
        if places.broker is not None:
            self._add("mqtt", places.broker.deliver, BATCH)

    @property
    def is_on(self) -> bool:
        """Whether anybody wants to know of inspections."""
        return bool(self._inspections)

    def note(self, record: Record | None) -> None:
        """Send a record wherever it is wanted. Never waits, never fails."""
        if record is not None:
            for outbox in self._inspections:
                outbox.put(record, record.size_bytes)

    def keep(self, answer: Kept) -> None:
        """Keep an answer where it survives a restart, if there is such a place."""
        if self._answers is not None and len(answer.body) <= SHELF_BYTES:
            self._answers.put(answer, len(answer.body))

    async def find(self, key: str) -> Kept | None:
        """The answer that was kept there; None while the database is away, or slow."""
        if self._database is None or self._answers is None or self._answers.is_away:
            return None
        if time.monotonic() < self._rest_until_s:
            return None
        try:
            return await self._lookups.ask(partial(self._database.find_answer, key), LOOKUP_S)
        except (Away, TimeoutError):
            self._rest_until_s = time.monotonic() + REST_S
            return None

    async def ask(self, question: Callable[[Database], Found]) -> Found:
        """The answer of the inspection log to a blocking question.

        Errors: ServiceBusy while it has enough to answer; RecordsOff; Away.
        """
        log = self.log()
        if self._questions.are_busy:
            raise ServiceBusy(f"{QUESTIONS} questions are being answered from the records", 1)
        return await self._questions.ask(partial(question, log))

    def log(self) -> Database:
        """The inspection log. Errors: RecordsOff; Away at once, once the writer has found it so."""
        if self._database is None:
            raise RecordsOff("SERVICE_DATABASE is not set: nothing is recorded here")
        if self._inspections[0].is_away:
            raise Away("the database is away")
        return self._database

    def close(self) -> None:
        """Send what still waits, for a few seconds at most. Blocking."""
        if self._retention is not None:
            self._retention.stop()
        self._lookups.close()
        self._questions.close()
        close([*self._inspections, *([self._answers] if self._answers else [])], PATIENCE_S)
        if self._database is not None:
            self._database.close()
        if self._broker is not None:
            self._broker.close()

    def _record(self, database: Database) -> None:
        def write(records: list[Record]) -> None:
            database.write([record.inspection() for record in records])

        self._add("database", write, BATCH)
        self._answers = Outbox(
            "answers",
            database.keep_answers,
            self._telemetry,
            max_bytes=self._settings.idempotency_bytes,
        )
        self._retention = Retention(database, self._settings)

    def _add(self, place: str, deliver: Callable[[list[Record]], None], batch: int = 1) -> None:
        room = self._settings.outbox_bytes
        outbox = Outbox(place, deliver, self._telemetry, max_bytes=room, batch=batch)
        self._inspections.append(outbox)


def _database(settings: Settings) -> Database | None:
    if settings.database is None:
        return None
    with extra_of("SERVICE_DATABASE", "records"):
        from service.records.database import Database
    return Database(settings.database.get_secret_value())


def _webhook(settings: Settings) -> Webhook | None:
    if settings.webhook_url is None:
        return None
    secret = settings.webhook_secret
    url = settings.webhook_url.get_secret_value()
    return Webhook(url, secret.get_secret_value() if secret else None)


def _broker(settings: Settings) -> Broker | None:
    if settings.mqtt_url is None:
        return None
    with extra_of("SERVICE_MQTT_URL", "mqtt"):
        from service.records.mqtt import Broker
    return Broker(settings.mqtt_url.get_secret_value(), settings.mqtt_topic)
