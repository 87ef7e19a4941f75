"""What is too old is deleted in the background, a few rows at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from service.records.outboxes import Away
from service.settings import Settings

if TYPE_CHECKING:
    from service.records.database import Database

LOG = logging.getLogger("service")
EVERY_S = 60.0
BETWEEN_STEPS_S = 0.05


class Retention:
    """A thread that looks every minute, from the start on; a database that is away has time."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._days = settings.retention_days
        self._max_bytes = settings.idempotency_bytes
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="retention", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the step that is being done."""
        self._stopping.set()
        self._thread.join(1.0)

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                self._forget_all(self._forget_inspections)
                self._forget_all(self._forget_answers)
            except Away:
                LOG.debug("retention: the database is away")
            self._stopping.wait(EVERY_S)

    def _forget_all(self, forget_some: Callable[[], int]) -> None:
        while not self._stopping.is_set() and forget_some():
            self._stopping.wait(BETWEEN_STEPS_S)

    def _forget_inspections(self) -> int:
        if self._days is None:
            return 0
        return self._database.forget_inspections(datetime.now(UTC) - timedelta(days=self._days))

    def _forget_answers(self) -> int:
        return self._database.forget_answers(time.time(), self._max_bytes)
