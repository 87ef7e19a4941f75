"""/v2/repository: load, unload and list bundles while the service runs, as Triton's clients do."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import ParameterInvalid
from service.bundles.shelf import Standing, State
from service.compute.admission import ServiceDraining
from service.deps import Services, ServicesDep
from service.uploads import bounded_chunks

router = APIRouter(prefix="/v2/repository", tags=["repository"])

MAX_BYTES = 65536
Body = TypeVar("Body", bound=BaseModel)


class Parameters(BaseModel):
    """What a change may be told. A bundle comes from the folder alone: nothing can be sent."""

    model_config = ConfigDict(extra="forbid")

    version: str | None = Field(default=None, description="load: the newest; unload: all of them")
    unload_dependents: bool = Field(default=False, description="no bundle depends on another")


class ChangeIn(BaseModel):
    """Body of a load or an unload; an empty one is as good."""

    model_config = ConfigDict(extra="forbid")

    parameters: Parameters = Parameters()


class IndexIn(BaseModel):
    """Body of a question for the index; an empty one is as good."""

    model_config = ConfigDict(extra="forbid")

    ready: bool = Field(default=False, description="only what is loaded")


class StandingOut(BaseModel):
    """How one version of a product stands."""

    name: str
    version: str
    state: State
    reason: str = Field(description="why it does not serve, or not as its folder now is")

    @classmethod
    def of(cls, standing: Standing) -> StandingOut:
        """From the library's row."""
        return cls(
            name=standing.product,
            version=standing.version,
            state=standing.state,
            reason=standing.reason,
        )


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's description of an optional JSON body, whatever its content type says."""
    content = {"application/json": {"schema": kind.model_json_schema()}}
    return {"requestBody": {"required": False, "content": content}}


@router.get("/index")
async def list_bundles(services: ServicesDep) -> list[StandingOut]:
    """Every version that is loaded or lies in the folder."""
    return [StandingOut.of(one) for one in await services.library.index()]


@router.post("/index", openapi_extra=body_of(IndexIn))
async def list_bundles_as_asked(request: Request, services: ServicesDep) -> list[StandingOut]:
    """The same; `{"ready": true}` leaves out what does not serve."""
    asked = await read_order(request, IndexIn)
    rows = await list_bundles(services)
    return [row for row in rows if row.state == "READY" or not asked.ready]


@router.post("/models/{product}/load", openapi_extra=body_of(ChangeIn))
async def load_bundle(
    product: str, request: Request, services: ServicesDep, version: str | None = None
) -> list[StandingOut]:
    """Open a version as it now lies in the folder, prove it, warm it up, and serve it.

    Without a version, in the body or the query, the newest. A bundle that is refused replaces
    nothing.
    """
    asked = await read_change(request, services, version)
    return [StandingOut.of(one) for one in await services.library.load(product, asked)]


@router.post("/models/{product}/unload", openapi_extra=body_of(ChangeIn))
async def unload_bundle(
    product: str, request: Request, services: ServicesDep, version: str | None = None
) -> list[StandingOut]:
    """Serve a version no more, or none of the product's. Requests that run end as they began."""
    asked = await read_change(request, services, version)
    return [StandingOut.of(one) for one in await services.library.unload(product, asked)]


async def read_change(request: Request, services: Services, version: str | None) -> str | None:
    """Which version a change is about. Errors: ServiceDraining; ParameterInvalid."""
    if services.engine.is_draining:
        raise ServiceDraining("the service is stopping")
    told = (await read_order(request, ChangeIn)).parameters.version
    if version is not None and told not in (None, version):
        raise ParameterInvalid("version", "is one in the query and another in the body")
    return version if told is None else told


async def read_order(request: Request, kind: type[Body]) -> Body:
    """A body that may be empty, and of any content type: Triton's clients send none.

    Errors: PictureTooLarge; ParameterInvalid.
    """
    body = b"".join([chunk async for chunk in bounded_chunks(request, MAX_BYTES)])
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        (first, *_) = error.errors()
        place = ".".join(map(str, first["loc"]))[:64]
        raise ParameterInvalid(place or "body", first["msg"]) from None
