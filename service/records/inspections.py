"""What is kept of one answered `/detect`: a row of the log, and the message that is published."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import AwareDatetime, Field, field_validator

from models.bundle import Bundle
from models.rules import Decision, Verdict
from service.schemas import (
    DefectOut,
    DetectionOut,
    ImageOut,
    ProductQuery,
    References,
)
from service.telemetry import new_id

REFERENCES = tuple(References.model_fields)
OWN_BYTES = 512
"""What a record takes beside its JSON."""


class InspectedImageOut(ImageOut):
    """The picture that was sent: its size when upright, and the digest of its bytes."""

    sha256: str


class InspectionOut(References):
    """One picture that was looked at, by which bundle, how, and with what outcome."""

    id: str = Field(description="this record's own, ordered in time")
    request_id: str = Field(description="`id` of the answer; not unique where clients choose it")
    time: AwareDatetime
    product: str
    version: str
    bundle: str = Field(description="sha256 of the bundle's manifest, which names its graphs'")
    verdict: Verdict
    decision: Decision
    defects: list[DefectOut]
    image: InspectedImageOut
    timings_ms: dict[str, float]
    parameters: dict[str, Any] = Field(description="what the request asked for, as sent")

    @field_validator("time", mode="before")
    @classmethod
    def know_the_zone(cls, time: Any) -> Any:
        """SQLite keeps no zone; what stands there is UTC."""
        is_naive = isinstance(time, datetime) and time.tzinfo is None
        return time.replace(tzinfo=UTC) if is_naive else time


@dataclass(frozen=True, slots=True)
class Record:
    """An inspection on its way: JSON, and what a topic may name.

    It waits as bytes, since its objects would take several times the memory.
    """

    id: str
    time: str
    product: str
    version: str
    verdict: Verdict
    decision: Decision
    json: bytes

    @classmethod
    def of(cls, one: InspectionOut) -> Record:
        """Takes its time where there are many defects: for a worker's thread."""
        time = one.model_dump(mode="json", include={"time"})["time"]
        json = one.model_dump_json().encode()
        return cls(one.id, time, one.product, one.version, one.verdict, one.decision, json)

    @property
    def size_bytes(self) -> int:
        """The memory that it takes."""
        return len(self.json) + OWN_BYTES

    @property
    def message(self) -> bytes:
        """What webhooks and MQTT carry, in the form of the Standard Webhooks specification."""
        head = f'{{"type":"inspection.answered","timestamp":"{self.time}","data":'
        return b"".join([head.encode(), self.json, b"}"])

    def inspection(self) -> InspectionOut:
        """What it was made of."""
        return InspectionOut.model_validate_json(self.json)


def inspection_of(
    answer: DetectionOut, picture: bytes, bundle: Bundle, query: ProductQuery
) -> InspectionOut:
    """What is kept of an answer. Reads the whole picture: for a worker's thread."""
    asked = query.model_dump(exclude_unset=True, exclude={"product", "version", *REFERENCES})
    return InspectionOut(
        id=new_id(),
        request_id=answer.id,
        time=datetime.now(UTC),
        **answer.references(),
        product=answer.product,
        version=answer.version,
        bundle=bundle.digest,
        verdict=answer.verdict,
        decision=answer.decision,
        defects=answer.defects,
        image=InspectedImageOut(
            **answer.image.model_dump(), sha256=hashlib.sha256(picture).hexdigest()
        ),
        timings_ms=answer.timings_ms,
        parameters=asked,
    )
