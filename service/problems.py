"""Our errors -> HTTP problem documents (RFC 9457), in one table; nobody else knows status codes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import (
    BundleMissing,
    DeviceLost,
    MaskMismatch,
    ParameterInvalid,
    PictureFormatUnknown,
    PictureTooLarge,
    PictureTooSmall,
    PictureUnreadable,
)
from service.bundles.folders import FolderAway
from service.bundles.library import ProductNeeded
from service.bundles.loading import StillLoading
from service.bundles.replicas import BundleRefused
from service.compute.admission import ServiceBusy, ServiceDraining
from service.deps import (
    DeadlineExceeded,
    KeyMissing,
    OriginRefused,
    RoleTooSmall,
)
from service.media_types import MediaTypeRefused
from service.records.outboxes import Away
from service.records.recording import InspectionMissing, RecordsOff
from service.records.replays import IdempotencyInProgress, IdempotencyMismatch
from service.schemas import ProblemOut
from service.uploads import ImageMissing

LOG = logging.getLogger("service")

PROBLEMS: Mapping[type[Exception], tuple[int, str]] = {
    KeyMissing: (401, "unauthorized"),
    OriginRefused: (403, "forbidden"),
    RoleTooSmall: (403, "forbidden"),
    BundleMissing: (404, "unknown_product"),
    InspectionMissing: (404, "not_found"),
    RecordsOff: (404, "not_found"),
    MediaTypeRefused: (406, "not_acceptable"),
    ProductNeeded: (409, "product_needed"),
    PictureTooLarge: (413, "too_large"),
    ImageMissing: (415, "unsupported_media_type"),
    PictureFormatUnknown: (415, "unsupported_media_type"),
    IdempotencyInProgress: (409, "idempotency_in_progress"),
    IdempotencyMismatch: (422, "idempotency_mismatch"),
    ParameterInvalid: (422, "invalid_parameter"),
    PictureUnreadable: (422, "unreadable_image"),
    PictureTooSmall: (422, "image_too_small"),
    MaskMismatch: (422, "mask_mismatch"),
    BundleRefused: (422, "bundle_refused"),
    ServiceBusy: (429, "busy"),
    ClientDisconnect: (499, "client_gone"),
    Away: (503, "records_unavailable"),
    FolderAway: (503, "bundles_unavailable"),
    DeviceLost: (503, "not_ready"),
    StillLoading: (503, "not_ready"),
    ServiceDraining: (503, "draining"),
    DeadlineExceeded: (504, "deadline_exceeded"),
}
TITLES = {
    "bad_request": "This is no HTTP request",
    "unauthorized": "An API key is needed",
    "forbidden": "This is not open to the request",
    "unknown_product": "No such product or version",
    "not_found": "No such resource",
    "method_not_allowed": "The resource has no such method",
    "not_acceptable": "No acceptable media type",
    "request_timeout": "The request did not come in time",
    "product_needed": "The default product must stay",
    "too_large": "The upload is too large",
    "unsupported_media_type": "No image of an accepted format",
    "idempotency_in_progress": "The same request is being worked on",
    "idempotency_mismatch": "The Idempotency-Key belongs to another request",
    "invalid_parameter": "A parameter is invalid",
    "unreadable_image": "The image cannot be read",
    "image_too_small": "The image is too small",
    "mask_mismatch": "The mask does not fit the image",
    "head_too_large": "The head of the request is too large",
    "bundle_refused": "The bundle cannot be loaded",
    "busy": "The service is busy",
    "client_gone": "The client went away",
    "records_unavailable": "The database is away; the service works on without it",
    "bundles_unavailable": "The bundles' folder is away; what is loaded serves on",
    "not_ready": "The service is not ready",
    "draining": "The service is stopping",
    "deadline_exceeded": "The deadline is over",
    "internal": "The service failed",
    "http_error": "The request cannot be answered",
}
UNEXPECTED = (500, "internal")
ROUTING_CODES = {404: "not_found", 405: "method_not_allowed"}
WORDS_OF_A_LIST = 3


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error of the application with a problem document.

    By coroutines all: a plain function would be called in a thread, and a refusal wait for one.
    """
    for error in PROBLEMS:
        app.add_exception_handler(error, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _routing)
    app.add_middleware(LastResort)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the problem documents with these status codes."""
    content = {"application/problem+json": {"schema": ProblemOut.model_json_schema()}}
    codes = {status: _codes_of(status) for status in statuses}
    return {status: {"description": codes[status], "content": content} for status in statuses}


def problem(
    request: Request, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """One problem document; the request's trace learns its code."""
    trace = request.state.trace
    trace.code = code
    body = problem_document(status, code, detail, trace.id)
    return Response(body, status, headers, "application/problem+json")


def problem_document(status: int, code: str, detail: str, request_id: str) -> str:
    """RFC 9457's JSON."""
    return ProblemOut(
        type=f"urn:flawsmith:problem:{code}",
        title=TITLES[code],
        status=status,
        detail=detail,
        error=detail,
        instance=f"/requests/{request_id}",
        code=code,
    ).model_dump_json()


class LastResort:
    """Turn what nobody expected into a problem document; the client learns its id, the log why."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        has_started = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception as error:
            if scope["type"] != "http" or (has_started and not self._is_cut(error, scope)):
                raise
            if not has_started:
                await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        LOG.exception("unexpected", extra={"fields": {"id": request.state.trace.id}})
        answer = problem(request, *UNEXPECTED, "the failure is logged under this instance")
        await answer(scope, receive, send)

    def _is_cut(self, error: Exception, scope: Scope) -> bool:
        """Whether an expected error came when the answer had begun; the server cuts the line."""
        row = _row_of(error.__cause__) if error.__cause__ else None
        if row is not None:
            Request(scope).state.trace.code = row[1]
        return row is not None


def _row_of(error: BaseException) -> tuple[int, str] | None:
    """Status and code of an error, None for one that nobody expects."""
    return next((row for kind, row in PROBLEMS.items() if isinstance(error, kind)), None)


async def _known(request: Request, error: Exception) -> Response:
    status, code = _row_of(error) or UNEXPECTED
    is_ours_to_mend = isinstance(error, DeviceLost)  # its words are for the log
    detail = TITLES[code] if is_ours_to_mend else str(error) or TITLES[code]
    if is_ours_to_mend:
        LOG.error("%s", error, extra={"fields": {"id": request.state.trace.id}})
    return problem(request, status, code, detail, _headers(request, status, error))


def _headers(request: Request, status: int, error: Exception) -> dict[str, str]:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": "Bearer"}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        least_s = request.app.state.services.settings.retry_after_s
        return {"Retry-After": str(max(least_s, getattr(error, "retry_after_s", 0)))}
    return {}


async def _invalid(request: Request, error: Exception) -> Response:
    """Name the parameters that pydantic refused; what was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    details = [_refusal(one) for one in error.errors()[:WORDS_OF_A_LIST]]
    return problem(request, 422, "invalid_parameter", "; ".join(details))


def _refusal(error: Mapping[str, Any]) -> str:
    field = error.get("ctx", {}).get("field", error["loc"][-1])
    return f"{field}: {error['msg']}"


async def _routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = ROUTING_CODES.get(error.status_code, "http_error")
    return problem(request, error.status_code, code, TITLES[code], error.headers)


def _codes_of(status: int) -> str:
    return ", ".join(dict.fromkeys(code for one, code in PROBLEMS.values() if one == status))
