"""Inspections as signed HTTP requests, in the form of the Standard Webhooks specification."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection

from service.records.addresses import address_of
from service.records.inspections import Record
from service.records.outboxes import Away, Refused

TIMEOUT_S = 10.0
ABOUT_THE_MESSAGE = {400, 413, 415, 422}
"""Statuses that no second try can change; with any other, the receiver may have been mended."""


class Webhook:
    """One receiver. It must take a message twice: it knows it by its `webhook-id`."""

    def __init__(
        self, url: str, secret: str | None, clock_s: Callable[[], float] = time.time
    ) -> None:
        """Errors: ValueError, which repeats neither of the two."""
        refusal = "SERVICE_WEBHOOK_URL is http(s)://HOST/PATH, without a user"
        parts = address_of(url, ("http", "https"), refusal)
        if parts.username:
            raise ValueError(refusal)
        self._connection = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._host, self._port = parts.hostname or "", parts.port
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._key = key_of(secret)
        self._clock_s = clock_s

    def deliver(self, records: list[Record]) -> None:
        """Send each. Errors: Away for no answer or one that is not 2xx; Refused."""
        for one in records:
            status = self._post(one.id, one.message)
            if status in ABOUT_THE_MESSAGE:
                raise Refused(f"status {status}")
            if not 200 <= status < 300:
                raise Away(f"status {status}")

    def _post(self, id: str, body: bytes) -> int:
        sent_s = str(int(self._clock_s()))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": id,
            "webhook-timestamp": sent_s,
            "webhook-signature": signature_of(self._key, id, sent_s, body),
        }
        connection = self._connection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", self._target, body, headers)
            return connection.getresponse().status
        except (OSError, HTTPException) as error:
            raise Away(f"{type(error).__name__}: {error}") from None
        finally:
            connection.close()


def signature_of(key: bytes, id: str, sent_s: str, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 of `id.time.body`: whoever has the key sent it, and when."""
    signed = f"{id}.{sent_s}.".encode() + body
    return "v1," + b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def key_of(secret: str | None) -> bytes:
    """The bytes of `whsec_…`. Errors: ValueError, which does not repeat it."""
    if not re.fullmatch(r"whsec_[A-Za-z0-9+/]{32,88}={0,2}", secret or ""):
        how = "whsec_ and 24 to 64 random bytes in base64: echo whsec_$(openssl rand -base64 32)"
        raise ValueError(f"SERVICE_WEBHOOK_SECRET must be {how}")
    try:
        return b64decode((secret or "").removeprefix("whsec_"), validate=True)
    except ValueError:
        raise ValueError("SERVICE_WEBHOOK_SECRET is no base64") from None
