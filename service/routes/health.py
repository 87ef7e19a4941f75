"""Server metadata, health and metrics: what probes and collectors read, without an API key."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.deps import ServicesDep

router = APIRouter(tags=["health"])


@router.get("/v2")
async def describe_server(request: Request) -> dict[str, str | list[str]]:
    """Server metadata."""
    return {"name": "flawsmith", "version": request.app.version, "extensions": ["model_repository"]}


@router.get("/v2/health/live")
async def live() -> dict[str, bool]:
    """Whether the process answers."""
    return {"live": True}


@router.get("/v2/health/ready")
async def ready(services: ServicesDep) -> dict[str, bool]:
    """Whether requests are welcome: not while loading or stopping, nor after a lost device."""
    services.engine.require_ready()
    services.loading.require_done()
    return {"ready": True}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: ServicesDep) -> Response:
    """Metrics as Prometheus reads them."""
    written = await asyncio.to_thread(generate_latest, services.telemetry.registry)
    return Response(written, media_type=CONTENT_TYPE_LATEST)
