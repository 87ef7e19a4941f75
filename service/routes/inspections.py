"""GET /inspections: what was looked at, newest first."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from models.rules import Decision, Verdict
from service.deps import ServicesDep, TimeLimit, deadline, single_parameters
from service.records.inspections import REFERENCES, InspectionOut
from service.records.recording import InspectionMissing
from service.schemas import ProductQuery

if TYPE_CHECKING:
    from service.records.database import Database

router = APIRouter(
    prefix="/inspections", tags=["inspections"], dependencies=[Depends(single_parameters)]
)

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]
RecordId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC)),
    AfterValidator(lambda time: time.astimezone(UTC)),
]
EQUAL = ("request_id", "product", "version", "verdict", "decision", *REFERENCES)
BOUNDS = ("since", "until", "after")


class InspectionQuery(ProductQuery):
    """Which records are asked for."""

    product: Name | None = None
    version: Name | None = None
    request_id: Name | None = Field(default=None, description="`id` of the answer")
    verdict: Verdict | None = None
    decision: Decision | None = None
    since: Moment | None = Field(default=None, description="from this time on, with its zone")
    until: Moment | None = Field(default=None, description="before this time, with its zone")
    limit: int = Field(default=100, ge=1, le=1000, description="records in one page")
    after: RecordId | None = Field(
        default=None, description="`next` of the page before: go on with older ones"
    )

    def given(self, *names: str) -> dict[str, Any]:
        """Those parameters that are given."""
        asked = {name: getattr(self, name) for name in names}
        return {name: value for name, value in asked.items() if value is not None}


class InspectionsOut(BaseModel):
    """One page of records, newest first."""

    inspections: list[InspectionOut]
    next: str | None = Field(description="`after` of the next page; null at the end")


@router.get("", response_model=InspectionsOut)
async def list_inspections(
    query: Annotated[InspectionQuery, Query()], services: ServicesDep, limit_s: TimeLimit
) -> Response:
    """Records, newest first. A record that is added meanwhile moves no page."""
    async with deadline(limit_s):
        page = await services.recording.ask(partial(page_of, query=query))
    return Response(page, media_type="application/json")


@router.get("/{id}")
async def find_inspection(
    id: Annotated[RecordId, Path()], services: ServicesDep, limit_s: TimeLimit
) -> InspectionOut:
    """One record."""
    async with deadline(limit_s):
        found = await services.recording.ask(lambda log: log.find(id))
    if found is None:
        raise InspectionMissing("no such record; it may have been too old to be kept")
    return found


def page_of(log: Database, query: InspectionQuery) -> bytes:
    """The whole answer: a thousand records are too long for the event loop. Blocking."""
    found = log.page(query.given(*EQUAL), query.given(*BOUNDS), query.limit + 1)
    page = found[: query.limit]
    following = page[-1].id if len(found) > query.limit else None
    return InspectionsOut(inspections=page, next=following).model_dump_json().encode()
