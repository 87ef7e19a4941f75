"""What a route may ask for, by type."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request, Response
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import ClientDisconnect

from models.bundle import Bundle
from models.errors import FlawsmithError, ParameterInvalid
from models.steps.pictures import PictureLimits
from service.bundles.library import Library
from service.bundles.loading import Loading
from service.compute.engine import Engine
from service.compute.tickets import LaneName, Ticket
from service.keys import Role, roles_of
from service.media_types import favourite_type
from service.records.recording import Recording
from service.records.replays import Claim, Replays, claim_of, replayed
from service.schemas import ProductQuery
from service.settings import Settings
from service.telemetry import Telemetry, Trace
from service.uploads import Upload, picture_limits, read_upload

Answer = TypeVar("Answer")


class KeyMissing(FlawsmithError):
    """API keys are configured and the request has none that fits."""


class RoleTooSmall(FlawsmithError):
    """The request's key is known and does not open this."""


class OriginRefused(FlawsmithError):
    """A page asks that is neither the service's own nor of an allowed origin."""


class DeadlineExceeded(FlawsmithError):
    """The request took longer than it, or the service, allows."""


@dataclass(frozen=True)
class Services:
    """What an application is made of."""

    settings: Settings
    loading: Loading
    engine: Engine
    telemetry: Telemetry
    recording: Recording
    replays: Replays

    @property
    def library(self) -> Library:
        """The loaded bundles. Errors: StillLoading."""
        return self.loading.library


async def services_of(request: Request) -> Services:
    """The services of the application that got the request.

    Not a plain function: FastAPI would call that in a thread, and health and refusals would wait
    for one beside the graphs.
    """
    services: Services = request.app.state.services
    return services


@dataclass
class Visit:
    """One request that has a place inside, from its first byte to its answer's last."""

    request: Request
    services: Services
    trace: Trace
    limit_s: float
    ticket: Ticket
    idempotency_key: str | None = None
    claim: Claim | None = None

    def pick(self, query: ProductQuery) -> Bundle:
        """The bundle that the request names. Errors: BundleMissing."""
        self.trace.references = query.references()
        bundle = self.services.library.pick(query.product, query.version, self.ticket.device)
        self.trace.product = bundle.manifest.product
        self.trace.version = bundle.manifest.version
        return bundle

    def limits(self, bundle: Bundle) -> PictureLimits:
        """What this deployment and the bundle both take."""
        return picture_limits(self.services.settings, bundle.manifest.limits)

    async def upload(self, bundle: Bundle, *parts: str) -> Upload:
        """Read the body: the image, or a form with these parts; nothing is decoded yet.

        Errors: those of the headers; ServiceBusy when the pictures would not fit into memory.
        """
        with self.trace.measure("upload"):
            upload = await read_upload(self.request, parts, self.services.settings.max_bytes)
        decoded_bytes = await asyncio.to_thread(upload.decoded_bytes, self.limits(bundle))
        self.services.engine.load(self.ticket, decoded_bytes)
        return upload

    async def once(self, upload: Upload, answer: Callable[[], Awaitable[Response]]) -> Response:
        """The answer; where the request has an Idempotency-Key, only its first time a new one.

        Errors: IdempotencyMismatch, IdempotencyInProgress.
        """
        if self.idempotency_key is None:
            return await answer()
        replays = self.services.replays
        claim = await asyncio.to_thread(claim_of, self.request, self.idempotency_key, upload)
        kept = await replays.claim(claim)
        if kept is not None:
            self.trace.replayed = True
            return replayed(kept)
        self.claim = claim
        return replays.keep(claim, await answer())

    def leave(self) -> None:
        """The answer is out, or will never be."""
        if self.claim is not None:
            self.services.replays.release(self.claim)

    async def run(self, work: Callable[[], Answer]) -> Answer:
        """Do blocking work in a worker's thread.

        Errors: ClientDisconnect when the client goes first; work that still waits then never runs.
        """
        return await self._unless_left(self.services.engine.run(work, self.ticket, self.trace))

    async def run_audited(self, work: Callable[[bool], Answer], *, can_wait: bool) -> Answer:
        """The same for work that audits. It is told not to where others do and it cannot wait."""

        async def in_seat() -> Answer:
            engine = self.services.engine
            async with engine.audit(self.ticket, can_wait=can_wait) as may_audit:
                return await engine.run(partial(work, may_audit), self.ticket, self.trace)

        return await self._unless_left(in_seat())

    async def _unless_left(self, answering: Coroutine[None, None, Answer]) -> Answer:
        """Errors: ClientDisconnect."""
        doing = asyncio.ensure_future(answering)
        leaving = asyncio.ensure_future(self._client_leaves())
        try:
            await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            raise ClientDisconnect
        finally:
            doing.cancel()
            leaving.cancel()
            del doing, leaving  # a failure's frames would hold it, and the picture, in a cycle

    def has_time(self, share: float) -> bool:
        """For a worker that could stop early: whether that share of the request's time is left.

        Errors: ClientDisconnect when nobody waits any more.
        """
        self.ticket.go_on()
        return self.trace.total_ms() < 1e3 * self.limit_s * (1.0 - share)

    async def _client_leaves(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass


async def time_limit(
    services: Annotated[Services, Depends(services_of)],
    timeout_ms: Annotated[
        int | None,
        Header(
            alias="X-Request-Timeout-Ms",
            ge=1,
            le=2**31 - 1,
            description="longest time for this request; the service's own limit still holds",
        ),
    ] = None,
) -> float:
    """The longest time of this request, seconds."""
    limit_s = services.settings.timeout_s
    return limit_s if timeout_ms is None else min(limit_s, timeout_ms / 1000.0)


TimeLimit = Annotated[float, Depends(time_limit)]


@asynccontextmanager
async def deadline(limit_s: float) -> AsyncIterator[None]:
    """End what is inside when the time is over. Errors: DeadlineExceeded."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(f"not done within {limit_s:g} s") from error


def visit_in(lane: LaneName) -> Callable[..., AsyncIterator[Visit]]:
    """A dependency: a visit whose work is done in that lane."""

    async def visit(
        request: Request,
        services: Annotated[Services, Depends(services_of)],
        limit_s: TimeLimit,
        idempotency_key: Annotated[
            str | None,
            Header(
                alias="Idempotency-Key",
                pattern=r"^[!-~]{1,255}$",
                description="a request sent again under its key gets the first one's answer again",
            ),
        ] = None,
    ) -> AsyncIterator[Visit]:
        """Hold a place until the answer is out or the deadline is over, whatever it then waits for.

        Errors: ServiceBusy, ServiceDraining, DeadlineExceeded.
        """
        with services.engine.visit(lane) as ticket:
            trace = request.state.trace
            guest = Visit(request, services, trace, limit_s, ticket, idempotency_key)
            try:
                async with deadline(limit_s):
                    yield guest
            finally:
                guest.leave()

    return visit


def require_role(role: Role) -> Callable[..., Awaitable[None]]:
    """A dependency that lets a request pass whose key opens as much, or any without keys set.

    An `admin` key opens all. Without keys an admin is whoever is on this machine: behind an address
    that others reach nobody is one. Errors: KeyMissing, RoleTooSmall.
    """

    async def require(
        services: Annotated[Services, Depends(services_of)],
        bearer: Annotated[
            HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))
        ],
        header: Annotated[str | None, Depends(APIKeyHeader(name="X-API-Key", auto_error=False))],
    ) -> None:
        if role == "admin" and not services.settings.has_admins:
            raise RoleTooSmall("this needs an `admin` key, and SERVICE_API_KEYS has none")
        entries = services.settings.api_keys
        held = roles_of([bearer.credentials if bearer else "", header or ""], entries)
        if entries and not held:
            raise KeyMissing("send `Authorization: Bearer <key>` or `X-API-Key: <key>`")
        if entries and not held & {role, "admin"}:
            raise RoleTooSmall(f"this needs a key of the role `{role}`")

    return require


async def own_page(request: Request, services: Annotated[Services, Depends(services_of)]) -> None:
    """Errors: OriginRefused for a POST of a stranger's page; a browser sends it unasked."""
    origin = request.headers.get("origin")
    if request.method != "POST" or origin is None:
        return
    if not services.settings.lets_ask(origin, request.headers.get("host", "")):
        raise OriginRefused("pages of this origin may not ask; SERVICE_CORS_ORIGINS names who may")


async def single_parameters(request: Request) -> None:
    """Errors: ParameterInvalid for a query parameter that is given twice; which one is meant?"""
    given = request.query_params
    twice = next((name for name in given if len(given.getlist(name)) > 1), None)
    if twice is not None:
        raise ParameterInvalid(twice[:64], "is given twice")


async def accepted_type(accept: Annotated[str, Header()] = "*/*") -> str:
    """The media type to answer with. Errors: MediaTypeRefused."""
    return favourite_type(accept)


ServicesDep = Annotated[Services, Depends(services_of)]
DetectionVisit = Annotated[Visit, Depends(visit_in("detection"))]
BulkVisit = Annotated[Visit, Depends(visit_in("bulk"))]
AcceptedType = Annotated[str, Depends(accepted_type)]
